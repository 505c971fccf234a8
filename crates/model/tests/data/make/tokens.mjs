// Reads lines.json, writes ../tokens.jsonl: every text with the ids that llama.cpp gives it.
//   npm install --ignore-scripts node-llama-cpp@3.22.1 && python3 lines.py
//   node tokens.mjs SmolLM2-135M-Instruct.Q4_1.gguf gemma-3-270m-q4_k_m.gguf
// A line: [text, SmolLM2 ids, Gemma 3 ids], and where special tokens are parsed the same ids
// in a fourth and fifth place if they differ.
import fs from 'node:fs';
import {getLlama} from 'node-llama-cpp';
const llama = await getLlama({gpu: false, build: 'never', logLevel: 'error'});
const models = [];
for (const modelPath of process.argv.slice(2)) models.push(await llama.loadModel({modelPath, vocabOnly: true}));
const lines = JSON.parse(fs.readFileSync('lines.json', 'utf8'));
const out = [JSON.stringify({made_with: 'tests/data/make', llama_cpp: llama.llamaCppRelease, node_llama_cpp: '3.22.1', lines: lines.length})];
for (const text of lines) {
    const plain = models.map(m => m.tokenize(text, false));
    const special = models.map(m => m.tokenize(text, true));
    const row = [text, ...plain];
    if (JSON.stringify(plain) !== JSON.stringify(special)) row.push(...special);
    out.push(JSON.stringify(row));
}
fs.writeFileSync('../tokens.jsonl', out.join('\n') + '\n');
