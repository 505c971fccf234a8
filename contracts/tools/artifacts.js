#!/usr/bin/env node
// Writes what the Rust program embeds, ABI and creation bytecode, from forge's output into the
// folder that is named: one contract a file, sorted and indented, so that a diff can be read.
"use strict";

const fs = require("fs");
const path = require("path");

const { each } = require("./compiled");

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

each(CONTRACTS, (name, compiled, into) => {
  const abi = compiled.abi.map((entry) => "    " + JSON.stringify(entry)).join(",\n");
  const text = `{\n  "contract": "${name}",\n  "abi": [\n${abi}\n  ],\n  "bytecode": "${compiled.bytecode.object}"\n}\n`;
  fs.writeFileSync(path.join(into, `${name}.json`), text);
});
