// A model on ONNX Runtime Web, in a browser or in node: from pixels to probabilities.

import * as ort from './onnxruntime-web/ort.wasm.min.mjs';

ort.env.wasm.wasmPaths = new URL('./onnxruntime-web/', import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need a server that isolates the page from others

// content: Uint8Array of the .onnx file; model: what model.json says.
export async function openModel(content, model) {
  const session = await ort.InferenceSession.create(content);
  const run = (input) => session.run({ [session.inputNames[0]]: input });
  return {
    makeInput: (picture) => makeInput(picture, model),
    run,
    async score(input) {
      const scores = Array.from((await run(input))[session.outputNames[0]].data.subarray(0, model.num_classes));
      if (!scores.every(Number.isFinite)) throw new Error('the model gives scores that are not finite');
      return model.softmax ? scores : softmax(scores);
    },
  };
}

function makeInput({ width, height, pixels }, model) {
  const [wantedHeight, wantedWidth] = model.input_size;
  if (!model.dynamic_size && (width !== wantedWidth || height !== wantedHeight)) {
    throw new Error(`the model takes ${wantedWidth} x ${wantedHeight} pixels, got ${width} x ${height}`);
  }
  const numImages = model.batch_size ?? 1;
  const area = width * height;
  const kind = model.with_preprocess ? 'uint8' : 'float32';
  const values = new (model.with_preprocess ? Uint8Array : Float32Array)(3 * area * numImages);
  const normalises = !model.with_preprocess && model.mean.length > 0;
  for (let plane = 0; plane < 3; ++plane) {
    // images are blue first, and a network that wants red first is given that, or turns it round itself
    const channel = model.to_rgb && !model.with_preprocess ? plane : 2 - plane;
    const [mean, std] = normalises ? [model.mean, model.std].map((of) => of[of.length > 1 ? plane : 0]) : [0, 1];
    for (let i = 0; i < area; ++i) values[plane * area + i] = (pixels[4 * i + channel] - mean) / std;
  }
  return new ort.Tensor(kind, values, [numImages, 3, height, width]);
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

export function rank(scores, count = 5) {
  return scores.map((score, label) => ({ label, score })).sort((a, b) => b.score - a.score).slice(0, count);
}
