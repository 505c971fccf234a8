#!/usr/bin/env node
// Writes the golden vectors that Rust and Solidity are both held against, computed by a third
// implementation: viem. Cases to accept say what must come out, cases to reject must fail.
// Usage: tools/vectors.mjs FOLDER

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { concat, encodeAbiParameters, hashTypedData, keccak256, numberToHex, pad, toHex } from "viem";
import { privateKeyToAccount, sign, serializeSignature } from "viem/accounts";

const into = process.argv[2];
if (!into) {
  process.stderr.write("usage: tools/vectors.mjs FOLDER\n");
  process.exit(1);
}

// Numbers that everybody may know; nothing of value is ever theirs.
const KEYS = { payer: 0xa11cen, session: 0x5e55n, offer: 0x0ffe2n, stranger: 0x57a4n };
const key = (name) => pad(numberToHex(KEYS[name]));
const address = (name) => privateKeyToAccount(key(name)).address;
const repeat = (byte, times) => `0x${byte.repeat(times)}`;
const SECP256K1_N = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;

const TYPES = {
  ChannelConfig: [
    { name: "payer", type: "address" },
    { name: "payerAuthorizer", type: "address" },
    { name: "receiver", type: "address" },
    { name: "receiverAuthorizer", type: "address" },
    { name: "token", type: "address" },
    { name: "withdrawDelay", type: "uint40" },
    { name: "salt", type: "bytes32" },
  ],
  Voucher: [
    { name: "channelId", type: "bytes32" },
    { name: "maxClaimableAmount", type: "uint128" },
  ],
  Refund: [
    { name: "channelId", type: "bytes32" },
    { name: "nonce", type: "uint256" },
    { name: "amount", type: "uint128" },
  ],
  ClaimBatch: [{ name: "claims", type: "ClaimEntry[]" }],
  ClaimEntry: [
    { name: "channelId", type: "bytes32" },
    { name: "maxClaimableAmount", type: "uint128" },
    { name: "totalClaimed", type: "uint128" },
  ],
  ReceiveWithAuthorization: [
    { name: "from", type: "address" },
    { name: "to", type: "address" },
    { name: "value", type: "uint256" },
    { name: "validAfter", type: "uint256" },
    { name: "validBefore", type: "uint256" },
    { name: "nonce", type: "bytes32" },
  ],
  Statement: [
    { name: "modelId", type: "bytes32" },
    { name: "promptRoot", type: "bytes32" },
    { name: "nPrompt", type: "uint32" },
    { name: "samplerHash", type: "bytes32" },
    { name: "outputRoot", type: "bytes32" },
    { name: "nOutput", type: "uint32" },
    { name: "stopReason", type: "uint8" },
  ],
  Receipt: [
    { name: "statement", type: "Statement" },
    { name: "provider", type: "address" },
    { name: "payer", type: "address" },
    { name: "channelId", type: "bytes32" },
    { name: "chargedMicroUsd", type: "uint64" },
    { name: "cumulative", type: "uint64" },
    { name: "servedAt", type: "uint64" },
    { name: "ttftMs", type: "uint32" },
    { name: "durationMs", type: "uint32" },
    { name: "tier", type: "uint8" },
    { name: "requestId", type: "bytes32" },
  ],
  Offer: [
    { name: "provider", type: "address" },
    { name: "modelId", type: "bytes32" },
    { name: "inputPrice", type: "uint64" },
    { name: "cachedInputPrice", type: "uint64" },
    { name: "outputPrice", type: "uint64" },
    { name: "maxContext", type: "uint32" },
    { name: "concurrency", type: "uint32" },
    { name: "ttftPromiseMs", type: "uint32" },
    { name: "expiresAt", type: "uint64" },
  ],
};

const digest = (domain, primaryType, message) => hashTypedData({ domain, types: TYPES, primaryType, message });
const signed = async (name, hash) => serializeSignature(await sign({ hash, privateKey: key(name) }));

const channelDomain = (chainId, verifyingContract) => ({
  name: "x402 Batch Settlement",
  version: "1",
  chainId,
  verifyingContract,
});
const CANONICAL = "0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003";
const COLLECTOR = "0x4020806089470a89826cB9fB1f4059150b550004";
const TOKEN = "0x00000000000000000000000000000000000000fe";

async function channels() {
  const base = {
    payer: address("payer"),
    payerAuthorizer: "0x0000000000000000000000000000000000000000",
    receiver: "0x00000000000000000000000000000000000000a7",
    receiverAuthorizer: address("offer"),
    token: TOKEN,
    withdrawDelay: 900,
    salt: repeat("11", 32),
  };
  const accept = [];
  for (const [name, chainId, contract, config, amounts] of [
    ["the canonical contract on a development chain", 31337, CANONICAL, base, [5_000_000n, 3_000_000n, 0n]],
    ["the same on Base is another channel", 8453, CANONICAL, base, [5_000_000n, 3_000_000n, 0n]],
    ["another contract is another channel", 31337, repeat("ab", 20), base, [1n, 1n, 1n]],
    ["a session key signs", 31337, CANONICAL, { ...base, payerAuthorizer: address("session") }, [2n ** 63n, 7n, 255n]],
    ["the longest delay and another lane", 1, CANONICAL, { ...base, withdrawDelay: 2592000, salt: repeat("00", 32) }, [2n ** 64n - 1n, 2n ** 64n - 1n, 2n ** 32n]],
  ]) {
    const domain = channelDomain(chainId, contract);
    const channelId = digest(domain, "ChannelConfig", config);
    const [maxClaimableAmount, totalClaimed, nonce] = amounts;
    const voucher = digest(domain, "Voucher", { channelId, maxClaimableAmount });
    const refund = digest(domain, "Refund", { channelId, nonce, amount: totalClaimed });
    const entries = [
      { channelId, maxClaimableAmount, totalClaimed },
      { channelId: repeat("22", 32), maxClaimableAmount: 9n, totalClaimed: 8n },
    ];
    const depositSalt = 0xdeadbeefn + BigInt(accept.length);
    const depositNonce = keccak256(
      encodeAbiParameters([{ type: "bytes32" }, { type: "uint256" }], [channelId, depositSalt]),
    );
    const tokenDomain = { name: "Assay Test Dollar", version: "1", chainId, verifyingContract: TOKEN };
    const authorization = digest(tokenDomain, "ReceiveWithAuthorization", {
      from: config.payer,
      to: COLLECTOR,
      value: maxClaimableAmount,
      validAfter: 0n,
      validBefore: 1_900_000_000n,
      nonce: depositNonce,
    });
    const signer = config.payerAuthorizer === base.payerAuthorizer ? "payer" : "session";
    const depositSignature = await signed("payer", authorization);
    accept.push({
      name,
      chainId,
      contract,
      config,
      channelId,
      signerKey: key(signer),
      signer: address(signer),
      maxClaimableAmount: maxClaimableAmount.toString(),
      voucherDigest: voucher,
      voucherSignature: await signed(signer, voucher),
      totalClaimed: totalClaimed.toString(),
      refundNonce: nonce.toString(),
      refundDigest: refund,
      claimBatchDigest: digest(domain, "ClaimBatch", { claims: entries }),
      claimOfOneDigest: digest(domain, "ClaimBatch", { claims: entries.slice(0, 1) }),
      emptyClaimDigest: digest(domain, "ClaimBatch", { claims: [] }),
      deposit: {
        collector: COLLECTOR,
        tokenName: tokenDomain.name,
        tokenVersion: tokenDomain.version,
        validAfter: "0",
        validBefore: "1900000000",
        salt: toHex(depositSalt, { size: 32 }),
        nonce: depositNonce,
        digest: authorization,
        signature: depositSignature,
        collectorData: encodeAbiParameters(
          [{ type: "uint256" }, { type: "uint256" }, { type: "uint256" }, { type: "bytes" }],
          [0n, 1_900_000_000n, depositSalt, depositSignature],
        ),
      },
    });
  }

  // Every one of these looks like the first voucher above and must not count for it.
  const first = accept[0];
  const domain = channelDomain(first.chainId, first.contract);
  const good = first.voucherSignature;
  const [r, s, v] = [good.slice(2, 66), BigInt(`0x${good.slice(66, 130)}`), good.slice(130)];
  const twin = `0x${r}${toHex(SECP256K1_N - s, { size: 32 }).slice(2)}${v === "1b" ? "1c" : "1b"}`;
  const voucherFor = async (name, d, amount) =>
    signed(name, digest(d, "Voucher", { channelId: first.channelId, maxClaimableAmount: amount }));
  const max = BigInt(first.maxClaimableAmount);
  const reject = [
    ["the malleable twin", twin],
    ["the wrong recovery bit", `0x${r}${good.slice(66, 130)}${v === "1b" ? "1c" : "1b"}`],
    ["a recovery bit of 0", `0x${good.slice(2, 130)}00`],
    ["a recovery bit of 29", `0x${good.slice(2, 130)}1d`],
    ["signed by a stranger", await voucherFor("stranger", domain, max)],
    ["signed by the receiver's side", await voucherFor("offer", domain, max)],
    ["signed for another chain", await voucherFor("payer", channelDomain(8453, first.contract), max)],
    ["signed for another contract", await voucherFor("payer", channelDomain(first.chainId, repeat("ab", 20)), max)],
    ["signed for one micro-dollar less", await voucherFor("payer", domain, max - 1n)],
    ["signed as a refund", await signed("payer", digest(domain, "Refund", { channelId: first.channelId, nonce: 0n, amount: max }))],
    ["all zero", repeat("00", 65)],
    ["r above the order", `0x${repeat("ff", 32).slice(2)}${good.slice(66)}`],
  ].map(([name, signature]) => ({ name, signature }));
  return { note: "x402 batch-settlement: ids, digests and signatures. `reject` are signatures that must not count for the first voucher.", accept, reject };
}

async function receipts() {
  const provider = repeat("02", 20);
  const chainId = 31337;
  const registry = repeat("11", 20);
  const domain = { name: "Assay", version: "1", chainId, verifyingContract: registry };
  const statement = {
    modelId: repeat("01", 32),
    promptRoot: repeat("a1", 32),
    nPrompt: 3,
    samplerHash: repeat("a2", 32),
    outputRoot: repeat("a3", 32),
    nOutput: 2,
    stopReason: 1,
  };
  const receipt = {
    statement,
    provider,
    payer: repeat("03", 20),
    channelId: repeat("04", 32),
    chargedMicroUsd: 7n,
    cumulative: 70n,
    servedAt: 1_800_000_000n,
    ttftMs: 12,
    durationMs: 340,
    tier: 1,
    requestId: repeat("05", 32),
  };
  const offer = {
    provider,
    modelId: repeat("01", 32),
    inputPrice: 50_000n,
    cachedInputPrice: 5_000n,
    outputPrice: 100_000n,
    maxContext: 2048,
    concurrency: 4,
    ttftPromiseMs: 2_000,
    expiresAt: 1_800_000_000n,
  };
  const receiptDigest = digest(domain, "Receipt", receipt);
  const offerDigest = digest(domain, "Offer", offer);
  return {
    note: "The market's own typed data, under the domain (\"Assay\", \"1\", chain, registry).",
    chainId,
    registry,
    signerKey: key("offer"),
    signer: address("offer"),
    receipt,
    receiptDigest,
    receiptSignature: await signed("offer", receiptDigest),
    offer,
    offerDigest,
    offerSignature: await signed("offer", offerDigest),
  };
}

// The tree of PROTOCOL section 2, written a second time.
const leaf = (data) => keccak256(concat(["0x00", data]));
const node = (left, right) => keccak256(concat(["0x01", left, right]));
const ZERO = repeat("00", 32);
const bind = (count, top) => keccak256(concat(["0x02", toHex(count, { size: 8 }), top]));

function levels(leaves) {
  const all = [leaves];
  while (all.at(-1).length > 1) {
    const below = all.at(-1);
    const level = [];
    for (let i = 0; i < below.length; i += 2) level.push(node(below[i], below[i + 1] ?? ZERO));
    all.push(level);
  }
  return all;
}
const root = (leaves) => bind(leaves.length, leaves.length ? levels(leaves).at(-1)[0] : ZERO);
const siblings = (leaves, index) =>
  levels(leaves).slice(0, -1).map((level, depth) => level[(index >> depth) ^ 1] ?? ZERO);

function merkle() {
  const tokens = (count) => Array.from({ length: count }, (_, i) => (i * 2654435761 + 17) % 49152);
  const leaves = (count) => tokens(count).map((id) => leaf(toHex(id, { size: 4 })));
  const trees = [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 33].map((count) => ({
    tokens: tokens(count),
    root: root(leaves(count)),
  }));
  const accept = [];
  for (const [count, index] of [[1, 0], [2, 1], [3, 2], [5, 0], [5, 4], [8, 7], [9, 8], [33, 32], [33, 16]]) {
    const all = leaves(count);
    accept.push({ root: root(all), leaf: all[index], count, index, siblings: siblings(all, index) });
  }
  const five = leaves(5);
  const good = { root: root(five), leaf: five[2], count: 5, index: 2, siblings: siblings(five, 2) };
  const inner = levels(five)[1];
  const reject = [
    ["another leaf", { ...good, leaf: five[3] }],
    ["another index", { ...good, index: 3 }],
    ["an index past the end", { ...good, index: 5 }],
    ["an index that aliases modulo the width", { ...good, index: 10 }],
    ["a count that is one more", { ...good, count: 6 }],
    ["a count of another depth", { ...good, count: 4 }],
    ["a sibling too few", { ...good, siblings: good.siblings.slice(0, -1) }],
    ["a sibling too many", { ...good, siblings: [...good.siblings, ZERO] }],
    ["an inner node that passes for a leaf", { root: root(five), leaf: inner[1], count: 3, index: 1, siblings: [inner[0], levels(five)[2][1]] }],
    ["a padding word that passes for a leaf", { root: root(five), leaf: ZERO, count: 5, index: 5, siblings: siblings(five, 4).map((s, i) => (i === 0 ? five[4] : s)) }],
    ["the root of no leaves", { root: root([]), leaf: ZERO, count: 0, index: 0, siblings: [] }],
    ["another root", { ...good, root: root(leaves(4)) }],
    ["siblings in another order", { ...good, siblings: [...good.siblings].reverse() }],
  ].map(([name, opening]) => ({ name, ...opening }));
  return { note: "Keccak Merkle trees over token ids (a leaf is the id as a big-endian u32) and openings.", trees, accept, reject };
}

const text = (value) =>
  `${JSON.stringify(value, (_, v) => (typeof v === "bigint" ? v.toString() : v), 2)}\n`;
mkdirSync(into, { recursive: true });
writeFileSync(join(into, "channels.json"), text(await channels()));
writeFileSync(join(into, "receipts.json"), text(await receipts()));
writeFileSync(join(into, "merkle.json"), text(merkle()));
