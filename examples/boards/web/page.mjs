// The page. Files are chosen in it, or named in its address: index.html?model=net.onnx&image=cat.png&labels=labels.txt.
// The image's short edge gets the size of the model's input times `enlarge` (ImageNet's recipes: 256 / 224).

import * as ort from './node_modules/onnxruntime-web/dist/ort.wasm.min.mjs';
import { rank } from './ranking.mjs';

ort.env.wasm.wasmPaths = new URL('./node_modules/onnxruntime-web/dist/', import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need a server that isolates the page from others

const address = new URLSearchParams(location.search);
const enlarge = Number(address.get('enlarge') ?? 256 / 224);
const element = (id) => document.getElementById(id);
const show = (text) => { element('state').textContent = text; };
let session;
let picture;
let labels;

async function load(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} can't be loaded: ${response.status}`);
  return response;
}

// Draw the middle of the picture, and take its pixels: (3, size, size), blue first.
function readPixels(size) {
  const canvas = element('canvas');
  canvas.width = canvas.height = size;
  const scale = (enlarge * size) / Math.min(picture.width, picture.height);
  const [width, height] = [picture.width * scale, picture.height * scale].map(Math.round);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.imageSmoothingQuality = 'high';
  context.drawImage(picture, Math.round((size - width) / 2), Math.round((size - height) / 2), width, height);
  const { data } = context.getImageData(0, 0, size, size); // red, green, blue, alpha
  return Uint8Array.from({ length: 3 * size * size }, (_, i) => {
    const channel = 2 - Math.floor(i / (size * size));
    return data[4 * (i % (size * size)) + channel];
  });
}

async function classify() {
  if (!session || !picture) return;
  const size = session.inputMetadata[0].shape[2];
  const best = await rank(ort, session, readPixels(size), size);
  element('classes').replaceChildren(...best.map(({ label, score }) => {
    const line = document.createElement('li');
    line.textContent = `${labels?.[label] ?? label} ${score.toFixed(6)}`;
    return line;
  }));
  show('done');
}

async function take({ model, image, text }) {
  try {
    show('working');
    if (text) labels = text.trimEnd().split('\n');
    if (model) session = await ort.InferenceSession.create(new Uint8Array(await model.arrayBuffer()));
    if (image) picture = await createImageBitmap(await image.blob());
    show('Choose a model and an image.');
    await classify();
  } catch (error) {
    show(`error: ${error.message}`);
  }
}

element('model').onchange = (event) => take({ model: event.target.files[0] });
element('image').onchange = (event) => take({ image: new Response(event.target.files[0]) });

const [model, image, list] = await Promise.all(
  ['model', 'image', 'labels'].map((name) => address.has(name) && load(address.get(name))),
).catch((error) => { show(`error: ${error.message}`); return []; });
if (model || image) await take({ model, image, text: list && (await list.text()) });
