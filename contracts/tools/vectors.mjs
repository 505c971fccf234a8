#!/usr/bin/env node
// Writes the golden vectors that Rust and Solidity are both held against, computed by a third
// implementation: viem. Cases to accept say what must come out, cases to reject must fail.
// Usage: tools/vectors.mjs FOLDER

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { concat, encodeAbiParameters, hashStruct, hashTypedData, keccak256, numberToHex, pad, stringToHex, toHex } from "viem";
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
  ServiceRecord: [
    { name: "channelId", type: "bytes32" },
    { name: "revenue", type: "uint64" },
    { name: "promptTokens", type: "uint64" },
    { name: "outputTokens", type: "uint64" },
    { name: "requests", type: "uint32" },
    { name: "failures", type: "uint32" },
    { name: "ttft", type: "uint256" },
    { name: "speed", type: "uint256" },
  ],
  ServiceBatch: [{ name: "records", type: "ServiceRecord[]" }],
};

const digest = (domain, primaryType, message) => hashTypedData({ domain, types: TYPES, primaryType, message });
const signed = async (name, hash) => serializeSignature(await sign({ hash, privateKey: key(name) }));

// A signature and what looks like it: none of these may count where the first does.
const forgeries = (good) => {
  const [r, s, v] = [good.slice(2, 66), BigInt(`0x${good.slice(66, 130)}`), good.slice(130)];
  const other = v === "1b" ? "1c" : "1b";
  return [
    ["the malleable twin", `0x${r}${toHex(SECP256K1_N - s, { size: 32 }).slice(2)}${other}`],
    ["the wrong recovery bit", `0x${r}${good.slice(66, 130)}${other}`],
    ["a recovery bit of 0", `0x${good.slice(2, 130)}00`],
    ["a recovery bit of 29", `0x${good.slice(2, 130)}1d`],
    ["all zero", repeat("00", 65)],
    ["r above the order", `0x${repeat("ff", 32).slice(2)}${good.slice(66)}`],
  ];
};
const named = (list) => list.map(([name, signature]) => ({ name, signature }));

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
  const voucherFor = async (name, d, amount) =>
    signed(name, digest(d, "Voucher", { channelId: first.channelId, maxClaimableAmount: amount }));
  const max = BigInt(first.maxClaimableAmount);
  const reject = named([
    ...forgeries(first.voucherSignature),
    ["signed by a stranger", await voucherFor("stranger", domain, max)],
    ["signed by the receiver's side", await voucherFor("offer", domain, max)],
    ["signed for another chain", await voucherFor("payer", channelDomain(8453, first.contract), max)],
    ["signed for another contract", await voucherFor("payer", channelDomain(first.chainId, repeat("ab", 20)), max)],
    ["signed for one micro-dollar less", await voucherFor("payer", domain, max - 1n)],
    ["signed as a refund", await signed("payer", digest(domain, "Refund", { channelId: first.channelId, nonce: 0n, amount: max }))],
  ]);
  // Two channels of one contract in one batch, as the receiver's authorizer signs it.
  const two = [accept[0], accept[3]].map(({ channelId, maxClaimableAmount, totalClaimed }) => ({
    channelId,
    maxClaimableAmount: BigInt(maxClaimableAmount),
    totalClaimed: BigInt(totalClaimed),
  }));
  const claimOfTwo = digest(domain, "ClaimBatch", { claims: two });
  return {
    note: "x402 batch-settlement: ids, digests and signatures. `claimOfTwo` is the first and the fourth in one batch. `reject` are signatures that must not count for the first voucher.",
    accept,
    claimOfTwo: { digest: claimOfTwo, signer: address("offer"), signature: await signed("offer", claimOfTwo) },
    reject,
  };
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

// Eight counts of 32 bits, class 0 lowest.
const counts = (...classes) => classes.reduce((word, count, i) => word | (BigInt(count) << BigInt(32 * i)), 0n);

async function service(channelId) {
  const FULL = 4294967295n;
  const first = {
    channelId,
    revenue: 1_250_000n,
    promptTokens: 5_000n,
    outputTokens: 700n,
    requests: 9,
    failures: 1,
    ttft: counts(1, 2, 3, 0, 0, 2, 0, 1),
    speed: counts(0, 0, 0, 4, 0, 0, 3, 1),
  };
  const second = { ...first, revenue: 2_500_000n, requests: 12, ttft: counts(1, 2, 6, 0, 0, 2, 0, 1), speed: counts(0, 1, 0, 4, 0, 0, 3, 1) };
  const none = { channelId: repeat("00", 32), revenue: 0n, promptTokens: 0n, outputTokens: 0n, requests: 0, failures: 0, ttft: 0n, speed: 0n };
  const largest = {
    channelId: repeat("ff", 32),
    revenue: 2n ** 64n - 1n,
    promptTokens: 2n ** 64n - 1n,
    outputTokens: 2n ** 64n - 1n,
    requests: Number(FULL),
    failures: Number(FULL),
    ttft: counts(0, 0, 0, 0, 0, 0, 0, FULL),
    speed: counts(FULL),
  };
  const board = repeat("5c", 20);
  const domainOf = (chainId, verifyingContract) => ({ name: "Assay", version: "1", chainId, verifyingContract });
  const spelled = (r) => ({ ...r, ttft: toHex(r.ttft, { size: 32 }), speed: toHex(r.speed, { size: 32 }) });
  const accept = [];
  for (const [name, chainId, scoreboard, record] of [
    ["the first record of a channel", 31337, board, first],
    ["the next one", 31337, board, second],
    ["on Base it is another", 8453, board, first],
    ["for another scoreboard too", 31337, repeat("5d", 20), first],
    ["the largest there is", 1, board, largest],
    ["nothing but a failure", 31337, board, { ...none, channelId, failures: 1 }],
  ]) {
    const domain = domainOf(chainId, scoreboard);
    const hash = digest(domain, "ServiceRecord", record);
    const batch = digest(domain, "ServiceBatch", { records: [record] });
    accept.push({
      name,
      chainId,
      scoreboard,
      record: spelled(record),
      structHash: hashStruct({ types: TYPES, primaryType: "ServiceRecord", data: record }),
      digest: hash,
      payerSignature: await signed("payer", hash),
      batchOfOneDigest: batch,
      providerSignature: await signed("offer", batch),
    });
  }
  const domain = domainOf(31337, board);
  const record = (name, d, r) => signed(name, digest(d, "ServiceRecord", r));
  const batch = (name, d, records) => signed(name, digest(d, "ServiceBatch", { records }));
  const both = digest(domain, "ServiceBatch", { records: [first, second] });
  const steps = [
    ["the first of all", none, first, true],
    ["a later one", first, second, true],
    ["the same again", first, first, false],
    ["an older one", second, first, false],
    ["revenue forgotten", first, { ...second, revenue: first.revenue - 1n }, false],
    ["prompt tokens forgotten", first, { ...second, promptTokens: 4_999n }, false],
    ["output tokens forgotten", first, { ...second, outputTokens: 699n }, false],
    ["a failure forgotten", first, { ...second, failures: 0 }, false],
    ["a request that changed its class", first, { ...second, ttft: counts(0, 3, 6, 0, 0, 2, 0, 1) }, false],
    ["a pace that changed its class", first, { ...second, speed: counts(0, 1, 0, 3, 1, 0, 3, 1) }, false],
    ["more times than requests", first, { ...second, ttft: counts(1, 2, 7, 0, 0, 2, 0, 1) }, false],
    ["more requests than times", first, { ...second, requests: 13 }, false],
    ["more paces than requests", first, { ...second, speed: counts(5, 1, 0, 4, 0, 0, 3, 1) }, false],
    ["as many paces as requests", first, { ...second, speed: counts(4, 0, 0, 4, 0, 0, 3, 1) }, true],
    ["counts that sum to more than 32 bits", first, { ...second, requests: 2 ** 32 - 8, ttft: 2n ** 256n - 1n }, false],
  ].map(([name, previous, next, taken]) => ({ name, previous: spelled(previous), record: spelled(next), taken }));
  return {
    note: "Service records and batches, under the domain (\"Assay\", \"1\", chain, scoreboard). The channel is the first of channels.json; its payer signs records, its receiver's authorizer batches. `batchOfTwo` is the first two. `rejectPayer` and `rejectProvider` are signatures that must not count for the first record and the batch of it alone; `steps` are records after others, and whether they count.",
    recordTypehash: keccak256(stringToHex(`ServiceRecord(${TYPES.ServiceRecord.map(({ name, type }) => `${type} ${name}`).join(",")})`)),
    payer: address("payer"),
    provider: address("offer"),
    accept,
    batchOfTwo: { digest: both, signature: await signed("offer", both) },
    rejectPayer: named([
      ...forgeries(accept[0].payerSignature),
      ["signed by a stranger", await record("stranger", domain, first)],
      ["signed by the provider", await record("offer", domain, first)],
      ["signed for another chain", accept[2].payerSignature],
      ["signed for another scoreboard", accept[3].payerSignature],
      ["signed for another channel", await record("payer", domain, { ...first, channelId: repeat("01", 32) })],
      ["signed for a failure more", await record("payer", domain, { ...first, failures: 2 })],
      ["signed as a batch", await batch("payer", domain, [first])],
    ]),
    rejectProvider: named([
      ...forgeries(accept[0].providerSignature),
      ["signed by a stranger", await batch("stranger", domain, [first])],
      ["signed by the payer", await batch("payer", domain, [first])],
      ["signed for another chain", accept[2].providerSignature],
      ["signed for another scoreboard", accept[3].providerSignature],
      ["signed for a batch of two", await signed("offer", both)],
      ["signed for a batch of none", await batch("offer", domain, [])],
      ["signed as a record", await record("offer", domain, first)],
    ]),
    steps,
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
const channelVectors = await channels();
writeFileSync(join(into, "channels.json"), text(channelVectors));
writeFileSync(join(into, "service.json"), text(await service(channelVectors.accept[0].channelId)));
writeFileSync(join(into, "receipts.json"), text(await receipts()));
writeFileSync(join(into, "merkle.json"), text(merkle()));
