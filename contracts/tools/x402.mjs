#!/usr/bin/env node
// Proves that official x402 clients can speak to `Channels`: every function and event of the ABI that
// the package @x402/evm has built in stands in ours, with the same selector, answers and indexed fields.
// Errors are no part of it: the package decodes none.
// Usage: tools/x402.mjs

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { toEventSelector, toFunctionSelector } from "viem";

const contracts = join(dirname(fileURLToPath(import.meta.url)), "..");
const chunks = join(contracts, "node_modules/@x402/evm/dist/esm");
// The package exports no ABI: it stands in one of its chunks, whose name changes with every version.
const chunk = readdirSync(chunks).find(
  (name) => name.endsWith(".mjs") && readFileSync(join(chunks, name), "utf8").includes("var batchSettlementABI = ["),
);
if (!chunk) throw new Error("@x402/evm has no batchSettlementABI any more: find it, and name it here");
const { batchSettlementABI: theirs } = await import(pathToFileURL(join(chunks, chunk)).href);
const ours = JSON.parse(readFileSync(join(contracts, "artifacts/Channels.json"), "utf8")).abi;

const typed = (list) =>
  (list ?? [])
    .map((field) => (field.type.startsWith("tuple") ? `(${typed(field.components)})${field.type.slice(5)}` : field.type) + (field.indexed ? " indexed" : ""))
    .join(",");
const described = (entry) =>
  entry.type === "event"
    ? `event ${toEventSelector(entry)} (${typed(entry.inputs)})`
    : `function ${toFunctionSelector(entry)} (${typed(entry.inputs)}) ${entry.stateMutability === "nonpayable" ? "moves" : "reads"} (${typed(entry.outputs)})`;

const known = new Set(ours.filter((entry) => entry.type === "function" || entry.type === "event").map(described));
const missing = theirs.filter((entry) => !known.has(described(entry)));
for (const entry of missing) process.stderr.write(`Channels lacks x402's ${entry.name}: ${described(entry)}\n`);
if (theirs.length < 19) throw new Error(`only ${theirs.length} entries in x402's ABI`);
if (missing.length > 0) process.exit(1);
process.stdout.write(`Channels has all ${theirs.length} functions and events of @x402/evm\n`);
