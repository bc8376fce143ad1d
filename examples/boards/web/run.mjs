// Run a model on the images of mmrepvgg export-inputs --format npy --dtype uint8, one an input file, and write the
// classes for mmrepvgg score-outputs.
//
// node run.mjs MODEL.onnx INPUTS/ CLASSES.csv

import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as ort from 'onnxruntime-web';
import { rank } from './ranking.mjs';

const [model, folder, target] = process.argv.slice(2);
if (!target) {
  console.error('usage: node run.mjs MODEL.onnx INPUTS/ CLASSES.csv');
  process.exit(2);
}

const { shape, dtype } = JSON.parse(await readFile(join(folder, 'info.json'), 'utf8'));
if (dtype !== 'uint8' || shape[0] !== 1) throw new Error(`${folder} must hold uint8 images, one a file`);
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(await readFile(model));

const lines = [];
for (const name of (await readdir(join(folder, 'inputs'))).filter((name) => name.endsWith('.npy')).sort()) {
  const content = await readFile(join(folder, 'inputs', name));
  // an .npy begins with a text, and ends with the numbers
  const pixels = new Uint8Array(content.subarray(content.length - 3 * shape[2] * shape[3]));
  const best = await rank(ort, session, pixels, shape[2]);
  lines.push([name.slice(0, -4), ...best.map(({ label, score }) => `${label}:${score}`)].join(','));
}
await writeFile(target, lines.join('\n') + '\n');
console.log(`${target}: ${lines.length} images`);
