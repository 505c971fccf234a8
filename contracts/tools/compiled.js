// What forge compiled, contract by contract, for the tools that write something of each into a folder.
"use strict";

const fs = require("fs");
const path = require("path");

/// Calls `write(name, compiled, folder)` for each contract; the folder is the program's only argument.
exports.each = (contracts, write) => {
  const into = process.argv[2];
  if (!into) {
    process.stderr.write(`usage: tools/${path.basename(process.argv[1])} FOLDER\n`);
    process.exit(1);
  }
  const out = process.env.FOUNDRY_OUT || path.join(__dirname, "..", "out");
  fs.mkdirSync(into, { recursive: true });
  for (const name of contracts) {
    const file = path.join(out, `${name}.sol`, `${name}.json`);
    write(name, JSON.parse(fs.readFileSync(file, "utf8")), into);
  }
};
