// The page: images come in by the button or by dropping, and each becomes a card.

import { openModel, rank } from './classify.mjs';
import { applySteps } from './steps.mjs';

const element = (id) => document.getElementById(id);
const announce = (text) => { element('status').textContent = text; };

async function get(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} can not be loaded: status ${response.status}`);
  return response;
}

async function readPicture(file, model) {
  // as it is in the file: Python does not look at profiles of colours, but turns photos upright
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: 'none', imageOrientation: 'from-image' })
    .catch(() => { throw new Error('this browser can not read it as an image'); });
  const { width, height } = bitmap;
  if (width * height > model.max_pixels) throw new Error(`it has ${width} x ${height} pixels, too many for the model`);
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext('2d', { willReadFrequently: true });
  if (model.background) {
    context.fillStyle = `rgb(${model.background.join()})`;
    context.fillRect(0, 0, width, height);
  }
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { width, height, pixels: context.getImageData(0, 0, width, height).data };
}

const isTransparent = ({ pixels }) => {
  for (let i = 3; i < pixels.length; i += 4) if (pixels[i] < 255) return true;
  return false;
};

// Clocks of browsers are coarse, so that quick networks are run many times.
async function time(run) {
  const measure = async (count) => {
    const start = performance.now();
    for (let i = 0; i < count; ++i) await run();
    return (performance.now() - start) / count;
  };
  const count = Math.ceil(20 / Math.max(await measure(1), 0.1));
  const times = [];
  for (let round = 0; round < 5 && times.reduce((a, b) => a + b, 0) * count < 2000; ++round) {
    times.push(await measure(count));
  }
  return times.sort((a, b) => a - b)[times.length >> 1];
}

function draw(card, picture) {
  const canvas = card.querySelector('canvas');
  [canvas.width, canvas.height] = [picture.width, picture.height];
  const image = new ImageData(Uint8ClampedArray.from(picture.pixels), picture.width, picture.height);
  for (let i = 3; i < image.data.length; i += 4) image.data[i] = 255;
  canvas.getContext('2d').putImageData(image, 0, 0);
}

// Names come from the model's file. They are only ever set as text.
function fillTable(card, best, model) {
  card.querySelector('tbody').replaceChildren(...best.map(({ label, score }) => {
    const [row, name, number, bar] = ['tr', 'td', 'td', 'span'].map((tag) => document.createElement(tag));
    name.textContent = nameClass(model, label);
    bar.className = 'bar';
    bar.style.width = `${100 * score}%`;
    name.append(bar);
    number.textContent = score.toFixed(4);
    number.dataset.score = score;
    row.append(name, number);
    return row;
  }));
}

const nameClass = (model, label) => model.classes[label] ?? String(label);

async function classify(file, card, network, model) {
  const picture = await readPicture(file, model);
  const seen = applySteps(model.steps, picture);
  card.classList.toggle('is-transparent', !model.background && isTransparent(picture));
  draw(card, seen);
  const input = network.makeInput(seen);
  const best = rank(await network.score(input));
  fillTable(card, best, model);
  const milliseconds = (await time(() => network.run(input))).toFixed(2);
  card.querySelector('.time').textContent = `${milliseconds} ms`;
  return `${nameClass(model, best[0].label)}, ${best[0].score.toFixed(4)}, ${milliseconds} ms`;
}

async function take(files, network, model) {
  for (const file of files) {
    announce(`${file.name}: the network looks at it`);
    const card = element('card').content.cloneNode(true).firstElementChild;
    card.querySelector('h2').textContent = file.name;
    try {
      announce(`${file.name}: ${await classify(file, card, network, model)}`);
    } catch (error) {
      card.classList.add('failed');
      card.querySelector('.error').textContent = error.message;
      announce(`${file.name}: ${error.message}`);
    }
    element('results').prepend(card);
  }
}

async function start() {
  const model = await (await get('model.json')).json();
  element('title').textContent = document.title = model.name;
  const network = await openModel(new Uint8Array(await (await get('model.onnx')).arrayBuffer()), model);
  let done = Promise.resolve(); // one after the other, so that times are right
  const queue = (list) => {
    const files = [...list];
    done = done.then(() => take(files, network, model));
  };
  element('images').onchange = ({ target }) => {
    queue(target.files);
    target.value = ''; // so that the same image can be chosen again
  };
  element('images').disabled = false;
  document.ondragover = (event) => {
    event.preventDefault();
    document.body.classList.add('over');
  };
  document.ondragleave = () => document.body.classList.remove('over');
  document.ondrop = (event) => {
    event.preventDefault();
    document.body.classList.remove('over');
    queue(event.dataTransfer.files);
  };
  announce('The network is ready.');
}

start().catch((error) => announce(`The network can not be loaded: ${error.message}`));
