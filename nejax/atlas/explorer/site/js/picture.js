// A picture of a feature's examples as the page shows them, drawn on a canvas: text stays text, whatever it holds.

import { orderedExamples } from "./example_list.js";
import { decimal, shown } from "./format.js";
import { alignedRow, flowingRow, ROW } from "./picture_rows.js";
import { placeName } from "./place.js";
import { activationName, unitNoun } from "./sides.js";
import { themeColours, translucent } from "./theme.js";
import { mergedPeaks, peakName, visible, windowPieces } from "./tokens.js";

const WIDTH = 1200; // CSS pixels; twice as many are drawn
const SCALE = 2;
const MARGIN = 40;
const LABEL = 64; // room for the activation beside a row
const TALLEST = 8000; // canvases beyond some size are refused by browsers

/** The picture as a PNG blob. */
export async function featurePicture(atlas, neuron, place, view) {
  const painter = makePainter();
  const { rows, left } = layOut(painter, neuron, place, view);
  const head = heading(atlas, neuron, place);
  const top = MARGIN + 40 + 22 * head.length + 66;
  const height = top + rows.reduce((sum, row) => sum + row.height, 0) + (left ? ROW : 0) + 70;
  const { canvas, context, colours, fonts } = painter;
  canvas.width = WIDTH * SCALE;
  canvas.height = Math.ceil(height) * SCALE;
  context.scale(SCALE, SCALE);
  context.fillStyle = colours.panel;
  context.fillRect(0, 0, WIDTH, height);
  const write = (text, x, y, font, colour) => {
    Object.assign(context, {
      font,
      fillStyle: colour,
      textBaseline: "alphabetic",
      direction: "ltr",
      textAlign: "left",
    });
    context.fillText(text, x, y);
  };
  write(placeName(place), MARGIN, MARGIN + 26, `650 26px ${fonts.sans}`, colours.ink);
  head.forEach((line, i) =>
    write(
      fitted(context, line, `15px ${fonts.sans}`),
      MARGIN,
      MARGIN + 56 + 22 * i,
      `15px ${fonts.sans}`,
      colours.soft,
    ),
  );
  drawLegend(painter, neuron, view, top - 52, write);
  write(ordering(view), MARGIN, top - 8, `11px ${fonts.sans}`, colours.faint);
  let y = top;
  for (const { label, height: rowHeight, draw } of rows) {
    write(label, MARGIN, y + ROW * 0.7, `13px ${fonts.sans}`, colours.soft);
    draw(MARGIN + LABEL, y);
    y += rowHeight;
  }
  if (left) write(`and ${left} more`, MARGIN + LABEL, y + ROW * 0.7, `13px ${fonts.sans}`, colours.faint);
  write(fitted(context, location.href, `12px ${fonts.sans}`), MARGIN, height - 40, `12px ${fonts.sans}`, colours.faint);
  write(`nejax · atlas ${atlas.fingerprint}`, MARGIN, height - 22, `12px ${fonts.sans}`, colours.faint);
  return blobOf(canvas);
}

/** What the examples are ordered by, which stands beside each. */
const ordering = ({ order }) => (order === "central" ? "cohesion" : "activation");

/** The canvas with the sheet's colours and fonts. */
function makePainter() {
  const canvas = document.createElement("canvas");
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(`--${name}`).trim();
  const colours = themeColours(["panel", "ink", "soft", "faint", "line", "activation", "importance"]);
  return { canvas, context: canvas.getContext("2d"), colours, fonts: { sans: value("sans"), mono: value("mono") } };
}

function heading(atlas, neuron, place) {
  const { n_examples, cohesion, peak_tokens } = neuron.features[place.feature];
  const like = cohesion === null ? "" : `, cohesion ${decimal(cohesion)}`;
  const peaks = mergedPeaks(peak_tokens).map(([text, n]) => `${peakName(text).slice(0, 24)} ${n}`);
  return [
    visible(`${atlas.model} on ${atlas.corpus}`),
    `${n_examples} of ${neuron.examples.length} examples${like}. Peaks: ${peaks.join(", ")}`,
  ];
}

/** The rows that fit, with how many are left out. */
function layOut(painter, neuron, place, view) {
  const width = WIDTH - 2 * MARGIN - LABEL;
  const make = view.layout === "text" ? flowingRow : alignedRow;
  const numbers = orderedExamples(neuron, place, view.order).filter((i) => neuron.examples[i].tokens);
  const rows = [];
  let height = 0;
  for (const i of numbers) {
    const pieces = windowPieces(neuron, neuron.examples[i], view);
    const row = make(painter, pieces, { width, view, scale: neuron.measures.max_activation });
    if (height + row.height > TALLEST) break;
    height += row.height;
    rows.push({ ...row, label: shown(neuron.examples[i][ordering(view)]) });
  }
  return { rows, left: numbers.length - rows.length };
}

function drawLegend({ context, colours, fonts }, neuron, { shade }, y, write) {
  const font = `13px ${fonts.sans}`;
  let x = MARGIN + LABEL;
  const word = (text) => {
    write(text, x, y + 11, font, colours.soft);
    x += context.measureText(text).width + 7;
  };
  const bar = (colour, strength, height) => {
    const gradient = context.createLinearGradient(x, 0, x + 96, 0);
    gradient.addColorStop(0, translucent(colour, 0));
    gradient.addColorStop(1, translucent(colour, strength));
    context.fillStyle = gradient;
    context.fillRect(x, y + 12 - height, 96, height);
    context.strokeStyle = colours.line;
    context.lineWidth = 1;
    context.strokeRect(x, y + 12 - height, 96, height);
    x += 103;
  };
  if (shade === "activation" || shade === "both") {
    word(`${activationName(neuron.neuron)}  0`);
    bar(colours.activation, 0.6, 12);
    word(`${decimal(neuron.measures.max_activation)}, the ${unitNoun()}’s highest    `);
  }
  if (shade === "importance" || shade === "both") {
    word("importance  0");
    bar(colours.importance, 0.9, 5);
    word("1    ");
  }
  context.strokeStyle = colours.ink;
  context.lineWidth = 1.5;
  context.font = font;
  context.strokeRect(x, y - 2, context.measureText("peak").width + 8, 18);
  x += 4;
  word("peak");
}

/** As much of a line as there is room for. */
function fitted(context, text, font) {
  context.font = font;
  let shown = text.slice(0, 400);
  while (context.measureText(shown).width > WIDTH - 2 * MARGIN) shown = `${shown.slice(0, -6)}…`;
  return shown;
}

const blobOf = (canvas) =>
  new Promise((done, failed) =>
    canvas.toBlob(
      (blob) => (blob ? done(blob) : failed(new Error("This browser could not make the picture."))),
      "image/png",
    ),
  );
