// The steps of a test pipeline that are left to the page: resizing as Pillow and OpenCV do it, and the crop. A canvas
// resizes in another way. A picture is { width, height, pixels }, with pixels of (height, width, 4).

// Pillow's filters, as wide as the pixels of the result (examples/cpp/resize.h has the first one, too).
const FILTERS = {
  'pillow-bilinear': { support: 1, weigh: (x) => Math.max(1 - Math.abs(x), 0) },
  'pillow-bicubic': {
    support: 2,
    weigh: (signed) => {
      const x = Math.abs(signed);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
    },
  },
};

// Resize the width, and transpose.
function resizeWidthAndTranspose(from, width, { support, weigh }) {
  const { height, pixels } = from;
  const to = { width: height, height: width, pixels: new Uint8ClampedArray(4 * width * height) };
  const scale = from.width / width;
  const stretch = Math.max(scale, 1);
  const radius = support * stretch;
  for (let x = 0; x < width; ++x) {
    const center = (x + 0.5) * scale;
    const first = Math.max(Math.trunc(center - radius + 0.5), 0);
    const last = Math.min(Math.trunc(center + radius + 0.5), from.width);
    const filter = Array.from({ length: last - first }, (_, i) => weigh((first + i + 0.5 - center) / stretch));
    const sum = filter.reduce((a, b) => a + b);
    const weights = Int32Array.from(filter, (value) => Math.trunc((value / sum) * 2 ** 22 + Math.sign(value) * 0.5));
    for (let y = 0; y < height; ++y) {
      const target = 4 * (x * height + y);
      for (let channel = 0; channel < 3; ++channel) {
        let value = 2 ** 21;
        let source = 4 * (y * from.width + first) + channel;
        for (let i = 0; i < weights.length; ++i, source += 4) value += weights[i] * pixels[source];
        to.pixels[target + channel] = value >> 22;
      }
    }
  }
  return to;
}

// OpenCV's bilinear filter, which looks at two pixels in each direction, whatever the size: with whole numbers, too.
function findNeighbours(from, to) {
  return Array.from({ length: to }, (_, index) => {
    const exact = Math.fround((index + 0.5) * (from / to) - 0.5);
    const first = Math.floor(exact);
    const part = first < 0 || first >= from - 1 ? 0 : Math.fround(exact - first);
    const [near, far] = [first, first + 1].map((place) => Math.min(Math.max(place, 0), from - 1));
    return [near, far, Math.round(2048 * (1 - part)), Math.round(2048 * part)];
  });
}

function resizeLikeOpenCV({ width, height, pixels }, toWidth, toHeight) {
  const to = { width: toWidth, height: toHeight, pixels: new Uint8ClampedArray(4 * toWidth * toHeight) };
  const halves = width === 2 * toWidth && height === 2 * toHeight; // OpenCV takes the mean then
  const columns = findNeighbours(width, toWidth);
  findNeighbours(height, toHeight).forEach(([top, bottom, above, below], y) => {
    columns.forEach(([left, right, before, behind], x) => {
      for (let channel = 0; channel < 3; ++channel) {
        const at = (row, column) => pixels[4 * (row * width + column) + channel];
        const target = 4 * (y * toWidth + x) + channel;
        if (halves) {
          const sum = at(2 * y, 2 * x) + at(2 * y, 2 * x + 1) + at(2 * y + 1, 2 * x) + at(2 * y + 1, 2 * x + 1);
          to.pixels[target] = (sum + 2) >> 2;
        } else {
          const upper = at(top, left) * before + at(top, right) * behind;
          const lower = at(bottom, left) * before + at(bottom, right) * behind;
          to.pixels[target] = (((above * (upper >> 4)) >> 16) + ((below * (lower >> 4)) >> 16) + 2) >> 2;
        }
      }
    });
  });
  return to;
}

function resize(from, { edge, size, filter }) {
  const isUpright = from.width < from.height;
  const [height, width] = size ?? [
    isUpright ? Math.trunc((edge * from.height) / from.width) : edge,
    isUpright ? edge : Math.trunc((edge * from.width) / from.height),
  ];
  if (width === from.width && height === from.height) return from;
  if (filter === 'opencv-bilinear') return resizeLikeOpenCV(from, width, height);
  return resizeWidthAndTranspose(resizeWidthAndTranspose(from, width, FILTERS[filter]), height, FILTERS[filter]);
}

function crop(from, [height, width]) {
  if (width > from.width || height > from.height) {
    throw new Error(`the image is smaller than the crop of ${width} x ${height} pixels`);
  }
  const roundHalfToEven = (value) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value));
  const [left, top] = [roundHalfToEven((from.width - width) / 2), roundHalfToEven((from.height - height) / 2)];
  const to = { width, height, pixels: new Uint8ClampedArray(4 * width * height) };
  for (let y = 0; y < height; ++y) {
    const start = 4 * ((top + y) * from.width + left);
    to.pixels.set(from.pixels.subarray(start, start + 4 * width), 4 * y * width);
  }
  return to;
}

// steps: the list in model.json.
export function applySteps(steps, picture) {
  return steps.reduce((from, step) => (step.crop ? crop(from, step.crop) : resize(from, step)), picture);
}
