// From a file to the pixels that the network was taught with: upright, transparency on white, colour profiles not
// applied, then Pillow's own way to the network's size.

import { Resampler } from "./resample.js";

const MOST_PIXELS = 100_000_000; // as much as is read where the network is taught
const TILE = 2048; // pixels across a piece that is read at once, since canvases have limits of their own
const ROWS = 128;

export class Unreadable extends Error {}

// The file as the browser decodes it, upright. Its size is looked at before its pixels are decoded.
export async function decoded(file) {
  if (file.size === 0) throw new Unreadable("it is empty");
  const { width, height } = await measured(file);
  if (width * height > MOST_PIXELS) {
    throw new Unreadable(`${width} × ${height} pixels are too many: the most is ${MOST_PIXELS / 1e6} million`);
  }
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Unreadable("it is damaged, or this browser has too little memory for it");
  }
}

function measured(file) {
  return new Promise((resolve, reject) => {
    const address = URL.createObjectURL(file);
    const image = new Image();
    image.onload = () => {
      URL.revokeObjectURL(address);
      resolve({ width: image.naturalWidth, height: image.naturalHeight });
    };
    image.onerror = () => {
      URL.revokeObjectURL(address);
      reject(new Unreadable("it is no picture that this browser can read"));
    };
    image.src = address;
  });
}

// RGB of size x size. Waits between pieces, so that the page stays awake with large pictures.
export async function fitted(bitmap, size, fit) {
  let resampler;
  try {
    resampler = new Resampler(bitmap.width, bitmap.height, size, fit);
  } catch (error) {
    throw new Unreadable(`${bitmap.width} × ${bitmap.height} pixels are ${error.message}`);
  }
  const canvas = blank(Math.min(TILE, bitmap.width), ROWS);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = resampler.first; top < resampler.last; top += ROWS) {
    const rows = Math.min(ROWS, resampler.last - top);
    resampler.take(piece(context, bitmap, top, rows), rows);
    await new Promise((resume) => setTimeout(resume));
  }
  return resampler.square();
}

// whole rows, as bytes of red, green, blue and nothing
function piece(context, bitmap, top, rows) {
  const pixels = new Uint8ClampedArray(bitmap.width * rows * 4);
  for (let left = 0; left < bitmap.width; left += TILE) {
    const columns = Math.min(TILE, bitmap.width - left);
    context.fillStyle = "white";
    context.fillRect(0, 0, columns, rows);
    context.drawImage(bitmap, left, top, columns, rows, 0, 0, columns, rows);
    const { data } = context.getImageData(0, 0, columns, rows);
    for (let row = 0; row < rows; row++) {
      pixels.set(data.subarray(row * columns * 4, (row + 1) * columns * 4), (row * bitmap.width + left) * 4);
    }
  }
  return pixels;
}

// to be looked at: never larger than a card of the page needs
export function show(canvas, bitmap, longest) {
  const scale = Math.min(1, longest / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}

export function showSquare(canvas, square, size) {
  canvas.width = canvas.height = size;
  const image = new ImageData(size, size);
  for (let from = 0, to = 0; from < square.length; from += 3, to += 4) {
    image.data.set([square[from], square[from + 1], square[from + 2], 255], to);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function blank(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}
