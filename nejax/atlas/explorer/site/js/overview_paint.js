// The cells of all neurons as pixels: cividis by value, pale where filtered out, hatched where there is no value.

import { cividis } from "./colours.js";
import { cornerOf } from "./overview_layout.js";
import { rgb } from "./theme.js";

const LEVELS = 256;
const PALE = 0.1; // how much of the ink a filtered cell keeps

/** Paint the cells. `order` has the neuron of each place, `mask` is 1 for neurons that pass the filters. */
export function paint(canvas, { layout, order, values, range, mask, colours, ratio }) {
  canvas.width = Math.round(layout.width * ratio);
  canvas.height = Math.round(layout.height * ratio);
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  const palette = Uint32Array.from({ length: LEVELS }, (_, i) => packed(cividis(i / (LEVELS - 1))));
  const [paper, ink, line] = [colours.paper, colours.ink, colours.line].map(rgb);
  const pale = packed(paper.map((part, i) => part + PALE * (ink[i] - part)));
  const hatch = packed(line);
  const span = range.high - range.low;
  const gap = layout.cellWidth >= 5 ? 1 : 0;
  for (let place = 0; place < order.length; place++) {
    const id = order[place];
    const value = values[id];
    const box = pixelBox(layout, place, gap, ratio);
    if (mask && !mask[id]) fill(pixels, canvas.width, box, pale);
    else if (Number.isNaN(value)) fillHatched(pixels, canvas.width, box, hatch);
    else fill(pixels, canvas.width, box, palette[level(span > 0 ? (value - range.low) / span : 0.5)]);
  }
  context.putImageData(image, 0, 0);
}

const level = (share) => Math.round(Math.min(Math.max(share, 0), 1) * (LEVELS - 1));

/** A colour as a canvas's memory has it, on the little-endian machines that browsers run on. */
const packed = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

function pixelBox(layout, place, gap, ratio) {
  const { x, y } = cornerOf(layout, place);
  return {
    left: Math.round(x * ratio),
    right: Math.round((x + layout.cellWidth - gap) * ratio),
    top: Math.round(y * ratio),
    bottom: Math.round((y + layout.cellHeight - gap) * ratio),
  };
}

function fill(pixels, width, { left, right, top, bottom }, colour) {
  for (let y = top; y < bottom; y++) pixels.fill(colour, y * width + left, y * width + right);
}

function fillHatched(pixels, width, { left, right, top, bottom }, colour) {
  for (let y = top; y < bottom; y++)
    for (let x = left; x < right; x++) if ((x + y) % 4 < 2) pixels[y * width + x] = colour;
}
