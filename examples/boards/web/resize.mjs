// Resizing as Pillow does it, which the ImageNet recipes use for their test images (examples/cpp/resize.h is the same):
// a triangle filter that is as wide as the pixels of the result. A canvas resizes in another way.

// A picture is { width, height, pixels }, with pixels of (height, width, 4). Resize its width, and transpose it.
function resizeWidthAndTranspose(from, width) {
  const to = { width: from.height, height: width, pixels: new Uint8Array(4 * width * from.height) };
  const scale = from.width / width;
  const radius = Math.max(scale, 1);
  for (let x = 0; x < width; ++x) {
    const center = (x + 0.5) * scale;
    const first = Math.max(Math.trunc(center - radius + 0.5), 0);
    const last = Math.min(Math.trunc(center + radius + 0.5), from.width);
    const filter = Array.from({ length: last - first }, (_, i) =>
      Math.max(1 - Math.abs((first + i + 0.5 - center) / radius), 0));
    const sum = filter.reduce((a, b) => a + b);
    const weights = filter.map((value) => Math.floor((value / sum) * 2 ** 22 + 0.5));
    for (let y = 0; y < from.height; ++y) {
      for (let channel = 0; channel < 3; ++channel) {
        let value = 2 ** 21;
        for (let i = first; i < last; ++i) {
          value += weights[i - first] * from.pixels[4 * (y * from.width + i) + channel];
        }
        to.pixels[4 * (x * from.height + y) + channel] = value >> 22;
      }
    }
  }
  return to;
}

export function resizeShortEdge(from, edge) {
  const isUpright = from.width < from.height;
  const width = isUpright ? edge : Math.trunc((edge * from.width) / from.height);
  const height = isUpright ? Math.trunc((edge * from.height) / from.width) : edge;
  if (width === from.width && height === from.height) return from;
  return resizeWidthAndTranspose(resizeWidthAndTranspose(from, width), height);
}

// The middle of a picture, (3, size, size), blue first.
export function cropCenter(from, size) {
  const roundHalfToEven = (value) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value));
  const [left, top] = [from.width, from.height].map((length) => roundHalfToEven((length - size) / 2));
  return Uint8Array.from({ length: 3 * size * size }, (_, i) => {
    const [x, y] = [i % size, Math.floor(i / size) % size];
    const channel = 2 - Math.floor(i / (size * size));
    return from.pixels[4 * ((top + y) * from.width + left + x) + channel];
  });
}
