// Where each neuron's cell lies: every layer is a strip whose cells wrap. Places are in CSS pixels.

const LARGEST = 12;
const GAP = 10; // between strips
const LABEL = 20; // a label's line, where it stands above its strip
const AIM = 520; // of the whole, where the cells do not get too small

/**
 * Places of all cells.
 *
 * labelsAbove: leave a line for a label above each strip.
 * Gives {width, height, cellWidth, cellHeight, perRow, stripHeight, tops: y of each strip, nLayers, dMlp}.
 */
export function layOut({ n_layers: nLayers, d_mlp: dMlp }, available, labelsAbove) {
  const smallest = nLayers * dMlp > 100_000 ? 2 : 3;
  const gap = labelsAbove ? GAP / 2 + LABEL : GAP;
  const room = Math.max(AIM / nLayers - gap, 0);
  let cellWidth = LARGEST;
  let perRow = rowLength(dMlp, available, cellWidth);
  while (cellWidth > smallest && Math.ceil(dMlp / perRow) * cellWidth > room) {
    cellWidth -= 1;
    perRow = rowLength(dMlp, available, cellWidth);
  }
  const nRows = Math.ceil(dMlp / perRow);
  const tall = Math.max(Math.floor(room / nRows), cellWidth);
  cellWidth = Math.min(Math.max(Math.floor(available / perRow), 1), LARGEST);
  const cellHeight = Math.min(tall, 2 * cellWidth);
  const stripHeight = nRows * cellHeight;
  const first = labelsAbove ? LABEL : 0;
  return {
    width: perRow * cellWidth,
    height: nLayers * (stripHeight + gap) - GAP / 2,
    cellWidth,
    cellHeight,
    perRow,
    stripHeight,
    tops: Array.from({ length: nLayers }, (_, layer) => first + layer * (stripHeight + gap)),
    nLayers,
    dMlp,
  };
}

/** Cells in a row: a divisor of the layer's size, so that strips are whole blocks, unless that wastes much. */
function rowLength(dMlp, available, cellWidth) {
  const most = Math.max(Math.floor(available / cellWidth), 1);
  if (dMlp <= most) return dMlp;
  for (let n = most; n > 0.6 * most; n--) if (dMlp % n === 0) return n;
  return most;
}

/** The place (layer by layer, as drawn) of the cell at a point, or null. */
export function placeAt({ width, cellWidth, cellHeight, perRow, stripHeight, tops, dMlp }, x, y) {
  const layer = tops.findIndex((top) => y >= top && y < top + stripHeight);
  if (layer < 0 || x < 0 || x >= width) return null;
  const place = Math.floor((y - tops[layer]) / cellHeight) * perRow + Math.floor(x / cellWidth);
  return place < dMlp ? layer * dMlp + place : null;
}

/** The corner {x, y} of the cell of a place. */
export function cornerOf({ cellWidth, cellHeight, perRow, tops, dMlp }, place) {
  const inLayer = place % dMlp;
  return {
    x: (inLayer % perRow) * cellWidth,
    y: tops[Math.floor(place / dMlp)] + Math.floor(inLayer / perRow) * cellHeight,
  };
}

/** Where a key moves the cursor: arrows by a cell, Page keys by a layer, Home and End within the layer. */
export function moved({ perRow, nLayers, dMlp }, place, key) {
  const n = nLayers * dMlp;
  const start = place - (place % dMlp);
  const targets = {
    ArrowLeft: place - 1,
    ArrowRight: place + 1,
    ArrowUp: vertical(place, -perRow, start, dMlp, perRow),
    ArrowDown: vertical(place, perRow, start, dMlp, perRow),
    PageUp: place - dMlp,
    PageDown: place + dMlp,
    Home: start,
    End: start + dMlp - 1,
  };
  const target = targets[key];
  if (target === undefined) return null;
  return target >= 0 && target < n ? target : place;
}

/** A row up or down; past the edge of a layer, the same column of the next. */
function vertical(place, step, start, dMlp, perRow) {
  const target = place + step;
  if (target >= start && target < start + dMlp) return target;
  const column = (place - start) % perRow;
  const lastRow = Math.floor((dMlp - 1) / perRow) * perRow;
  if (step > 0) return start + dMlp + column;
  return start - dMlp + Math.min(lastRow + column, dMlp - 1);
}
