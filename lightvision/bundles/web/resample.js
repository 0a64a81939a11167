// Pillow's antialiased bicubic resize and its three ways to make a picture fit, bit for bit.
//
// What the network learnt from was resized by Pillow: separable, wide enough to average all that shrinks into a pixel,
// in integers with weights of 22 bits, rounded to pixels between the two passes. A canvas resizes otherwise, and other
// pixels are other answers.

const BITS = 22;
const HALF = 1 << (BITS - 1); // what a sum begins with, so that cutting its bits off rounds it
const SUPPORT = 2; // of the kernel below, in pixels of the larger grid

function cubic(distance) {
  const x = Math.abs(distance);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * -0.5;
  return 0;
}

// for each pixel that comes out: the first that goes in, and integer weights of it and those after it
function weighing(pixels, from, to, count) {
  const scale = Math.fround(to - from) / count;
  const stretch = Math.max(scale, 1);
  const support = SUPPORT * stretch;
  return Array.from({ length: count }, (_, index) => {
    const centre = from + (index + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), pixels);
    const weights = new Float64Array(last - first);
    let sum = 0;
    for (let x = 0; x < weights.length; x++) {
      weights[x] = cubic((x + first - centre + 0.5) * (1 / stretch));
      sum += weights[x];
    }
    return { first, weights: Int32Array.from(weights, (weight) => fixed(sum === 0 ? weight : weight / sum)) };
  });
}

function fixed(weight) {
  return Math.trunc(weight * 2 ** BITS + (weight < 0 ? -0.5 : 0.5));
}

function clipped(sum) {
  return Math.min(Math.max(sum >> BITS, 0), 255);
}

// ties go to the even one, as Python rounds
function rounded(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

// a fit says which part of the picture is taken, and where in the square it comes to lie
export const FITS = {
  crop(width, height, size) {
    const side = Math.min(width, height);
    const [left, top] = [(width - side) / 2, (height - side) / 2];
    return { box: [left, top, left + side, top + side], width: size, height: size, left: 0, top: 0 };
  },
  pad(width, height, size) {
    const inner = {
      width: width < height ? rounded((width / height) * size) : size,
      height: width > height ? rounded((height / width) * size) : size,
    };
    return {
      box: [0, 0, width, height],
      ...inner,
      left: rounded((size - inner.width) * 0.5),
      top: rounded((size - inner.height) * 0.5),
    };
  },
  stretch(width, height, size) {
    return { box: [0, 0, width, height], width: size, height: size, left: 0, top: 0 };
  },
};

// as Pillow chooses since its version 13
function downFirst(width, height, place) {
  return place.height < height && height - place.height > 2 * (width - place.width);
}

// Takes the rows of a picture from above to below, a few at a time, and gives RGB of size x size. A large picture is
// therefore never held as pixels, only sums of its rows.
export class Resampler {
  constructor(width, height, size, fit) {
    this.size = size;
    this.place = FITS[fit](width, height, size);
    if (this.place.width < 1 || this.place.height < 1) throw new RangeError("too long and thin for this network");
    const [left, top, right, bottom] = this.place.box.map(Math.fround);
    this.across = weighing(width, left, right, this.place.width);
    this.down = weighing(height, top, bottom, this.place.height);
    this.downFirst = downFirst(width, height, this.place);
    const [highest, lowest] = [this.down[0], this.down.at(-1)];
    this.first = highest.first; // rows before it, and from `last` on, count for nothing
    this.last = lowest.first + lowest.weights.length;
    this.row = this.first;
    this.line = (this.downFirst ? width : this.place.width) * 3;
    this.sums = new Int32Array(this.place.height * this.line).fill(HALF);
  }

  // `pixels` are `rows` whole rows of four bytes a pixel, the fourth of which is ignored
  take(pixels, rows) {
    const stride = pixels.length / rows;
    for (let row = 0; row < rows; row++, this.row++) {
      const colours = withoutAlpha(pixels.subarray(row * stride, (row + 1) * stride));
      const line = this.downFirst ? colours : narrowed(colours, this.across);
      this.down.forEach(({ first, weights }, index) => {
        const weight = weights[this.row - first];
        if (!weight) return;
        const start = index * this.line;
        for (let at = 0; at < line.length; at++) this.sums[start + at] += line[at] * weight;
      });
    }
  }

  square() {
    const { width, height, left, top } = this.place;
    const square = new Uint8Array(this.size * this.size * 3);
    for (let row = 0; row < height; row++) {
      const line = Uint8Array.from(this.sums.subarray(row * this.line, (row + 1) * this.line), clipped);
      const finished = this.downFirst ? narrowed(line, this.across) : line;
      square.set(finished.subarray(0, width * 3), ((top + row) * this.size + left) * 3);
    }
    return square;
  }
}

function withoutAlpha(pixels) {
  const colours = new Uint8Array((pixels.length / 4) * 3);
  for (let from = 0, to = 0; from < pixels.length; from += 4) {
    colours[to++] = pixels[from];
    colours[to++] = pixels[from + 1];
    colours[to++] = pixels[from + 2];
  }
  return colours;
}

function narrowed(line, across) {
  const result = new Uint8Array(across.length * 3);
  across.forEach(({ first, weights }, column) => {
    let red = HALF;
    let green = HALF;
    let blue = HALF;
    for (let x = 0, from = first * 3; x < weights.length; x++, from += 3) {
      red += line[from] * weights[x];
      green += line[from + 1] * weights[x];
      blue += line[from + 2] * weights[x];
    }
    result[column * 3] = clipped(red);
    result[column * 3 + 1] = clipped(green);
    result[column * 3 + 2] = clipped(blue);
  });
  return result;
}
