#!/usr/bin/env node
// Writes what the Rust program embeds, ABI and creation bytecode, from forge's output into the
// folder that is named: one contract a file, sorted and indented, so that a diff can be read.
"use strict";

const fs = require("fs");
const path = require("path");

// The last is for tests alone.
const CONTRACTS = [
  "Channels",
  "DisputeGame",
  "Erc3009Collector",
  "Models",
  "Multicall3",
  "PayoutVault",
  "Registry",
  "ReputationAdapter",
  "SampleReferee",
  "Scoreboard",
  "StepReferee",
  "TestDollar",
  "ArithmeticHarness",
];

const into = process.argv[2];
if (!into) {
  process.stderr.write("usage: tools/artifacts.js FOLDER\n");
  process.exit(1);
}
const out = process.env.FOUNDRY_OUT || path.join(__dirname, "..", "out");
fs.mkdirSync(into, { recursive: true });
for (const name of CONTRACTS) {
  const compiled = JSON.parse(fs.readFileSync(path.join(out, `${name}.sol`, `${name}.json`), "utf8"));
  const abi = compiled.abi.map((entry) => "    " + JSON.stringify(entry)).join(",\n");
  const text = `{\n  "contract": "${name}",\n  "abi": [\n${abi}\n  ],\n  "bytecode": "${compiled.bytecode.object}"\n}\n`;
  fs.writeFileSync(path.join(into, `${name}.json`), text);
}
