// Run a model on the images of mmrepvgg export-inputs --format npy --dtype uint8, one an input file, and write the
// classes for mmrepvgg score-outputs. SITE is a folder of mmrepvgg demo MODEL.onnx --static SITE, which has the runtime.
//
// node run.mjs SITE INPUTS/ CLASSES.csv

import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [site, folder, target] = process.argv.slice(2);
if (!target) {
  console.error('usage: node run.mjs SITE INPUTS/ CLASSES.csv');
  process.exit(2);
}

const { openModel, rank } = await import(pathToFileURL(resolve(site, 'classify.mjs')));
const { shape, dtype } = JSON.parse(await readFile(join(folder, 'info.json'), 'utf8'));
if (dtype !== 'uint8' || shape[0] !== 1) throw new Error(`${folder} must hold uint8 images, one a file`);
const [height, width] = shape.slice(2);
const model = JSON.parse(await readFile(join(site, 'model.json'), 'utf8'));
const network = await openModel(await readFile(join(site, 'model.onnx')), model);

const lines = [];
for (const name of (await readdir(join(folder, 'inputs'))).filter((name) => name.endsWith('.npy')).sort()) {
  const content = await readFile(join(folder, 'inputs', name));
  // an .npy begins with a text, and ends with the numbers: (3, H, W), blue first
  const planes = content.subarray(content.length - 3 * height * width);
  const pixels = new Uint8Array(4 * height * width);
  for (let i = 0; i < height * width; ++i) {
    for (let channel = 0; channel < 3; ++channel) pixels[4 * i + channel] = planes[(2 - channel) * height * width + i];
  }
  const best = rank(await network.score(network.makeInput({ width, height, pixels })));
  lines.push([name.slice(0, -4), ...best.map(({ label, score }) => `${label}:${score}`)].join(','));
}
await writeFile(target, lines.join('\n') + '\n');
console.log(`${target}: ${lines.length} images`);
