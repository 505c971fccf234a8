// A foreign client on the embedded chain: viem deploys the test dollar, mints, reads balances and
// logs, and sees a decoded error. Usage: viem.mjs URL PATH-OF-CONTRACTS

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [url, contracts] = process.argv.slice(2);
const require = createRequire(join(contracts, "package.json"));
const { createPublicClient, createWalletClient, defineChain, http } = await import(pathToFileURL(require.resolve("viem")));
const { generatePrivateKey, privateKeyToAccount } = await import(pathToFileURL(require.resolve("viem/accounts")));

const { abi, bytecode } = JSON.parse(readFileSync(join(contracts, "artifacts/TestDollar.json"), "utf8"));
const chain = defineChain({
  id: 31337,
  name: "assay",
  nativeCurrency: { name: "none", symbol: "NONE", decimals: 18 },
  rpcUrls: { default: { http: [url] } },
  contracts: { multicall3: { address: "0xcA11bde05977b3631167028862bE2a173976CA11" } },
});
const account = privateKeyToAccount(generatePrivateKey());
const reader = createPublicClient({ chain, transport: http(url) });
const wallet = createWalletClient({ account, chain, transport: http(url) });
const expect = (what, got, wanted) => {
  if (got !== wanted) throw new Error(`${what}: got ${got}, wanted ${wanted}`);
};

const deployed = await reader.waitForTransactionReceipt({ hash: await wallet.deployContract({ abi, bytecode }) });
expect("deployment", deployed.status, "success");
const dollar = { abi, address: deployed.contractAddress };
const hash = await wallet.writeContract({ ...dollar, functionName: "mint", args: [account.address, 5n] });
const minted = await reader.waitForTransactionReceipt({ hash });
expect("mint", minted.status, "success");
expect("sender", minted.from, account.address.toLowerCase());
const [balance, decimals] = await reader.multicall({
  allowFailure: false,
  contracts: [
    { ...dollar, functionName: "balanceOf", args: [account.address] },
    { ...dollar, functionName: "decimals" },
  ],
});
expect("balance", balance, 5n);
expect("decimals", decimals, 6);
const logs = await reader.getContractEvents({ ...dollar, eventName: "Transfer", fromBlock: 0n });
expect("logs", logs.length, 1);
expect("log", logs[0].args.value, 5n);
const block = await reader.getBlock({ blockNumber: minted.blockNumber, includeTransactions: true });
expect("transaction", block.transactions[0].hash, hash);
const refused = await wallet
  .writeContract({ ...dollar, functionName: "transfer", args: [account.address, 6n] })
  .then(() => "nothing", (error) => error.walk((e) => e.data?.errorName)?.data?.errorName);
expect("refusal", refused, "ERC20InsufficientBalance");
process.stdout.write("viem is content\n");
