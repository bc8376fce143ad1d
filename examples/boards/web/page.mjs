// The page. Files are chosen in it, or named in its address:
// index.html?model=net.onnx&labels=labels.txt&edge=256&image=cat.png. The image's short edge gets `edge` pixels, and the
// middle of the result is the model's input.

import * as ort from './node_modules/onnxruntime-web/dist/ort.wasm.min.mjs';
import { rank } from './ranking.mjs';
import { cropCenter, resizeShortEdge } from './resize.mjs';

ort.env.wasm.wasmPaths = new URL('./node_modules/onnxruntime-web/dist/', import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need a server that isolates the page from others

const address = new URLSearchParams(location.search);
const edge = Number(address.get('edge') ?? 256);
const element = (id) => document.getElementById(id);
const show = (text) => { element('state').textContent = text; };
let session;
let picture;
let labels;

async function load(name) {
  if (!address.has(name)) return undefined;
  const response = await fetch(address.get(name));
  if (!response.ok) throw new Error(`${address.get(name)} can't be loaded: ${response.status}`);
  return response.blob();
}

async function readPicture(file) {
  const bitmap = await createImageBitmap(file);
  const canvas = element('canvas');
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { width, height, data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  return { width, height, pixels: data }; // red, green, blue, alpha
}

async function take({ model, image }) {
  show('working');
  if (model) session = await ort.InferenceSession.create(new Uint8Array(await model.arrayBuffer()));
  if (image) picture = await readPicture(image);
  if (!session || !picture) return show('Choose a model and an image.');
  const size = session.inputMetadata[0].shape[2];
  if (edge < size) throw new Error(`edge must be at least ${size}, the size of the model's input, got ${edge}`);
  const best = await rank(ort, session, cropCenter(resizeShortEdge(picture, edge), size), size);
  element('classes').replaceChildren(...best.map(({ label, score }) => {
    const line = document.createElement('li');
    line.textContent = `${labels?.[label] ?? label} ${score.toFixed(6)}`;
    return line;
  }));
  return show('done');
}

const fail = (error) => show(`error: ${error.message}`);
element('model').onchange = (event) => take({ model: event.target.files[0] }).catch(fail);
element('image').onchange = (event) => take({ image: event.target.files[0] }).catch(fail);

try {
  const [model, image, list] = await Promise.all(['model', 'image', 'labels'].map(load));
  labels = list && (await list.text()).trimEnd().split('\n');
  if (model || image) await take({ model, image });
} catch (error) {
  fail(error);
}
