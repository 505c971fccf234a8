// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title Manifests, each stored once, as the code of contracts that hold nothing else.
/// @notice Anybody publishes. A model's id is the keccak of its manifest, so what stands here under an
///         id is the manifest of that id, whoever published it. Nothing is ever changed or removed.
/// @dev Code costs a third of storage to write and far less to read, range by range (`EXTCODECOPY`).
///      What the bytes mean is for `Manifest` to say; bytes that are no manifest are the id of no model
///      that anybody answers under, and do no harm.
contract Models {
    /// @notice Manifest bytes of a piece: the limit of code (EIP-170) less the byte before them.
    uint256 public constant PIECE_BYTES = 24_575;
    /// @notice Most bytes of a manifest: a thousand layers take 600 KB, and no transaction's gas does.
    uint256 public constant MANIFEST_BYTES_MOST = 1 << 20;

    mapping(bytes32 modelId => address[]) private _pieces;

    /// @notice A manifest is here for good.
    event Published(bytes32 indexed modelId, uint256 length);

    /// @notice Longer than the referee reads.
    error TooLong(uint256 length, uint256 most);
    /// @notice A manifest of no bytes.
    error Empty();
    /// @notice The chain did not take a piece as code.
    error NotStored(uint256 piece);

    /// @notice Stores a manifest. Once it is stored, publishing it again only answers its id.
    function publish(bytes calldata manifest) external returns (bytes32 modelId) {
        if (manifest.length == 0) revert Empty();
        if (manifest.length > MANIFEST_BYTES_MOST) revert TooLong(manifest.length, MANIFEST_BYTES_MOST);
        modelId = keccak256(manifest);
        address[] storage pieces = _pieces[modelId];
        if (pieces.length != 0) return modelId;
        for (uint256 start = 0; start < manifest.length; start += PIECE_BYTES) {
            uint256 end = start + PIECE_BYTES < manifest.length ? start + PIECE_BYTES : manifest.length;
            pieces.push(_store(manifest[start:end], pieces.length));
        }
        emit Published(modelId, manifest.length);
    }

    /// @notice Where a manifest stands, piece after piece; none if it is unknown.
    function piecesOf(bytes32 modelId) external view returns (address[] memory) {
        return _pieces[modelId];
    }

    /// @notice Whether a manifest is known.
    function isPublished(bytes32 modelId) external view returns (bool) {
        return _pieces[modelId].length != 0;
    }

    /// @notice The whole manifest; empty if it is unknown.
    function manifestOf(bytes32 modelId) external view returns (bytes memory manifest) {
        address[] storage pieces = _pieces[modelId];
        for (uint256 i = 0; i < pieces.length; ++i) {
            bytes memory code = pieces[i].code;
            bytes memory data = new bytes(code.length - 1);
            assembly ("memory-safe") {
                mcopy(add(data, 32), add(code, 33), mload(data))
            }
            manifest = bytes.concat(manifest, data);
        }
    }

    /// @dev The code begins with STOP, so that a call to a piece does nothing whatever the bytes are.
    function _store(bytes calldata data, uint256 index) private returns (address piece) {
        // Creation code of 11 bytes: copies what follows it, a STOP and the data, and returns that.
        //   61 size  PUSH2   80 DUP1   60 0a PUSH1 10   3d RETURNDATASIZE (0)   39 CODECOPY   3d   f3 RETURN
        bytes memory creation =
            abi.encodePacked(bytes1(0x61), uint16(data.length + 1), hex"80600a3d393df3", bytes1(0x00), data);
        assembly ("memory-safe") {
            piece := create(0, add(creation, 32), mload(creation))
        }
        if (piece == address(0)) revert NotStored(index);
    }
}
