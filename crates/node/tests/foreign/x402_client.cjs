// The official x402 client, unmodified, buys from a node: opens a channel by deposit, pays a plain answer, a streamed
// one, recovers its count by the node's corrective 402, has a part and then the rest of its money refunded, and comes
// back with a new deposit. Arguments: the folder of the packages, the node's URL, the
// chain's RPC URL, a private key. Prints one JSON line a step.
const { createRequire } = require("node:module");
const [folder, node, rpc, secret] = process.argv.slice(2);
const official = createRequire(folder + "/");
const { x402Client, wrapFetchWithPayment, decodePaymentResponseHeader } = official("@x402/fetch");
const { BatchSettlementEvmScheme } = official("@x402/evm/batch-settlement/client");
const { toClientEvmSigner } = official("@x402/evm");
const { privateKeyToAccount } = official("viem/accounts");
const { createPublicClient, http } = official("viem");

async function main() {
  const chain = createPublicClient({ transport: http(rpc) });
  const network = `eip155:${await chain.getChainId()}`;
  const signer = toClientEvmSigner(privateKeyToAccount(secret), chain);
  const client = new x402Client();
  const scheme = new BatchSettlementEvmScheme(signer);
  client.register(network, scheme);
  client.setSpendControls(false);
  const pay = wrapFetchWithPayment(fetch, client);

  async function ask(stream) {
    const body = { model: "tiny", prompt: "Once", max_tokens: 6, temperature: 0, stream };
    const headers = { "content-type": "application/json" };
    const response = await pay(node + "/v1/completions", { method: "POST", headers, body: JSON.stringify(body) });
    const text = await response.text();
    if (response.status !== 200) throw new Error(`${response.status} ${text}`);
    const header = response.headers.get("PAYMENT-RESPONSE");
    const settled = decodePaymentResponseHeader(header);
    const last = stream ? JSON.parse(text.split("\n\n").at(-3).slice("data: ".length)) : JSON.parse(text);
    const receipt = last.assay.receipt.body;
    console.log(JSON.stringify({
      stream,
      deposited: settled.transaction !== "",
      charged: receipt.charged,
      cumulative: receipt.cumulative,
      told: settled.extra.chargedAmount,
    }));
  }

  async function refund(options) {
    const settled = await scheme.refund(node + "/v1/completions", options);
    if (!settled.success) throw new Error(JSON.stringify(settled));
    console.log(JSON.stringify({ refunded: settled.amount, transaction: settled.transaction }));
  }

  await ask(false);
  await ask(false);
  await ask(true);
  await ask(false);
  await refund({ amount: "1000" });
  await ask(true);
  await refund();
  await ask(false);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
