#!/usr/bin/env node
// Writes the storage layout of every contract that keeps any, from forge's output, into the folder that
// is named: one variable a line, `slot+offset bytes type name`, members of structs below their type.
// Whoever reads storage directly, or compares two versions, reads these.
"use strict";

const fs = require("fs");
const path = require("path");

const { each } = require("./compiled");

const CONTRACTS = [
  "Channels",
  "DisputeGame",
  "Erc3009Collector",
  "Models",
  "PayoutVault",
  "Registry",
  "ReputationAdapter",
  "Scoreboard",
  "TestDollar",
];

each(CONTRACTS, (name, compiled, into) => {
  const layout = compiled.storageLayout;
  if (!layout) throw new Error(`${name} was compiled without its storage layout: build with --force`);
  const types = layout.types || {};
  const shown = new Set();
  const lines = [];
  const line = (field, indent) => {
    const type = types[field.type];
    lines.push(`${indent}${field.slot}+${field.offset} ${type.numberOfBytes} ${type.label} ${field.label}`);
  };
  // Structs once each, in the order in which the variables lead to them.
  const structs = [];
  const reach = (id) => {
    const type = types[id];
    if (!type || shown.has(id)) return;
    shown.add(id);
    if (type.members) structs.push(type);
    for (const next of [type.key, type.value, type.base, ...(type.members || []).map((m) => m.type)]) if (next) reach(next);
  };
  for (const field of layout.storage) {
    line(field, "");
    reach(field.type);
  }
  for (const type of structs) {
    lines.push("", type.label);
    for (const member of type.members) line(member, "  ");
  }
  if (lines.length === 0) lines.push("nothing");
  fs.writeFileSync(path.join(into, `${name}.txt`), `${lines.join("\n")}\n`);
});
