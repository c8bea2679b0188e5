// Rows of tokens on a canvas: with the peak where it is in all rows, or flowing over several lines.

import { translucent } from "./theme.js";
import { shading, visible } from "./tokens.js";

export const ROW = 26; // height of a line of tokens
const GAP = 6; // between examples of several lines
const BEFORE = 0.62; // share of the width that is left of an aligned peak

/** {height, draw(x, y)} of an example in one line; what has no room is cut off at the ends. */
export function alignedRow(painter, pieces, { width, view, scale }) {
  const peak = pieces.findIndex(({ fromPeak }) => fromPeak === 0);
  const runs = pieces.map((piece, i) => run(painter, piece, view, scale, i === peak));
  const middle =
    width * (view.before + view.after > 0 ? BEFORE * Math.min(1, (1.6 * view.before) / (view.before + view.after)) : 0);
  const start = middle - runs.slice(0, peak).reduce((sum, { width: own }) => sum + own, 0);
  const draw = (x, y) => {
    const { context } = painter;
    context.save();
    context.beginPath();
    context.rect(x - 2, y, width + 2, ROW);
    context.clip();
    let at = x + start;
    for (const one of runs) {
      drawRun(painter, one, at, y);
      at += one.width;
    }
    context.restore();
  };
  return { height: ROW, draw };
}

/** {height, draw(x, y)} of an example over as many lines as it needs. Tokens longer than a line are broken. */
export function flowingRow(painter, pieces, { width, view, scale }) {
  const placed = [];
  let [x, line] = [0, 0];
  for (const piece of pieces) {
    const whole = run(painter, piece, view, scale, piece.fromPeak === 0);
    for (const one of x + whole.width <= width ? [whole] : broken(painter, whole, width)) {
      if (x > 0 && x + one.width > width) [x, line] = [0, line + 1];
      placed.push({ one, x, line });
      x += one.width;
    }
  }
  const draw = (left, top) =>
    placed.forEach(({ one, x: at, line: row }) => drawRun(painter, one, left + at, top + row * ROW));
  return { height: (line + 1) * ROW + GAP, draw };
}

/** A token as it is drawn. */
function run(painter, piece, view, scale, isPeak) {
  const font = `${isPeak ? 650 : 400} 15px ${painter.fonts.mono}`;
  const text = visible(piece.text, view);
  painter.context.font = font;
  return {
    text,
    font,
    isPeak,
    lights: shading(piece, scale, view.shade),
    width: painter.context.measureText(text).width,
  };
}

/** A run cut into parts that each fit a line. */
function broken(painter, whole, width) {
  if (whole.width <= width) return [whole];
  painter.context.font = whole.font;
  const parts = [];
  let text = "";
  const measure = (some) => painter.context.measureText(some).width;
  for (const character of whole.text) {
    if (text && measure(text + character) > width) {
      parts.push({ ...whole, text, width: measure(text) });
      text = "";
    }
    text += character;
  }
  return [...parts, { ...whole, text, width: measure(text) }];
}

function drawRun({ context, colours }, { text, font, isPeak, lights, width }, x, y) {
  context.fillStyle = translucent(colours.activation, lights.activation * 0.6);
  context.fillRect(x, y + 3, width, ROW - 6);
  if (lights.importance > 0) {
    context.fillStyle = translucent(colours.importance, lights.importance * 0.9);
    context.fillRect(x, y + ROW - 5, width, 3);
  }
  Object.assign(context, {
    font,
    fillStyle: colours.ink,
    direction: "ltr",
    textAlign: "left",
    textBaseline: "alphabetic",
  });
  context.fillText(text, x, y + ROW * 0.68);
  if (!isPeak) return;
  context.strokeStyle = colours.ink;
  context.lineWidth = 1.5;
  context.strokeRect(x, y + 2.5, Math.max(width, 2), ROW - 5);
}
