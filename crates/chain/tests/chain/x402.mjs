// The official x402 client and facilitator, unmodified, on the embedded chain: deposit, voucher,
// claim, settle and refund go through our contracts at x402's addresses.
// Usage: x402.mjs URL PATH-OF-CONTRACTS

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [url, contracts] = process.argv.slice(2);
const require = createRequire(join(contracts, "package.json"));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { createWalletClient, defineChain, http, keccak256, publicActions, toHex } = await load("viem");
const { privateKeyToAccount } = await load("viem/accounts");
const { computeChannelId, createBatchSettlementEIP3009DepositPayload, signVoucher } = (
  await load("@x402/evm/batch-settlement/client")
).default;
const { BatchSettlementEvmScheme } = (await load("@x402/evm/batch-settlement/facilitator")).default;

const expect = (what, got, wanted) => {
  if (got !== wanted) throw new Error(`${what}: got ${got}, wanted ${wanted}`);
};
const account = (name) => privateKeyToAccount(keccak256(toHex(name)));
const [relay, payer, authorizer] = ["relay", "payer", "authorizer"].map(account);
const chain = defineChain({
  id: 31337,
  name: "assay",
  nativeCurrency: { name: "none", symbol: "NONE", decimals: 18 },
  rpcUrls: { default: { http: [url] } },
});
const wallet = createWalletClient({ account: relay, chain, transport: http(url) }).extend(publicActions);
const { abi, bytecode } = JSON.parse(readFileSync(join(contracts, "artifacts/TestDollar.json"), "utf8"));
const mined = async (hash) => wallet.waitForTransactionReceipt({ hash });
const { contractAddress: token } = await mined(await wallet.deployContract({ abi, bytecode }));
await mined(await wallet.writeContract({ abi, address: token, functionName: "mint", args: [payer.address, 10_000_000n] }));
const balance = (of) => wallet.readContract({ abi, address: token, functionName: "balanceOf", args: [of] });

const facilitator = new BatchSettlementEvmScheme(
  {
    getAddresses: () => [relay.address],
    getCode: (args) => wallet.getCode(args),
    readContract: (args) => wallet.readContract(args),
    sendTransaction: (args) => wallet.sendTransaction(args),
    verifyTypedData: (args) => wallet.verifyTypedData(args),
    waitForTransactionReceipt: (args) => wallet.waitForTransactionReceipt(args),
    writeContract: (args) => wallet.writeContract(args),
  },
  { address: authorizer.address, signTypedData: (args) => authorizer.signTypedData(args) },
);
const network = "eip155:31337";
const receiver = "0x00000000000000000000000000000000000000a7";
const requirements = {
  scheme: "batch-settlement",
  network,
  amount: "1000",
  asset: token,
  payTo: receiver,
  maxTimeoutSeconds: 600,
  extra: { name: "Assay Test Dollar", version: "1", receiverAuthorizer: authorizer.address, withdrawDelay: 900 },
};
const config = {
  payer: payer.address,
  payerAuthorizer: payer.address,
  receiver,
  receiverAuthorizer: authorizer.address,
  token,
  withdrawDelay: 900,
  salt: `0x${"11".repeat(32)}`,
};
const settle = async (what, payload) => {
  const answer = await facilitator.settle({ x402Version: 2, payload, accepted: requirements }, requirements);
  expect(what, answer.success, true);
  return answer;
};

const deposit = await createBatchSettlementEIP3009DepositPayload(payer, 2, requirements, config, "5000000", "1000");
const deposited = await settle("deposit", deposit.payload);
expect("balance", deposited.extra.channelState.balance, "5000000");

const voucher = await signVoucher(payer, computeChannelId(config, network), "2000000", network);
const payload = { type: "voucher", channelConfig: config, voucher };
const verified = await facilitator.verify({ x402Version: 2, payload, accepted: requirements }, requirements);
expect("voucher", verified.isValid, true);

const claim = (totalClaimed) => ({
  voucher: { channel: config, maxClaimableAmount: "2000000" },
  signature: voucher.signature,
  totalClaimed,
});
await settle("claim", { type: "claim", claims: [claim("1500000")] });
expect("settled", (await settle("settle", { type: "settle", receiver, token })).amount, "1500000");
const refund = { type: "refund", channelConfig: config, voucher, amount: "9000000", refundNonce: "0" };
expect("refunded", (await settle("refund", { ...refund, claims: [claim("1600000")] })).amount, "3400000");
expect("receiver", await balance(receiver), 1_500_000n);
expect("payer", await balance(payer.address), 8_400_000n);
process.stdout.write("x402 is content\n");
