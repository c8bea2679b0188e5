// The bins that histograms of a measure share, and their outlines.

const N_BINS = 48;

/** The axis {low, high, nBins, nTicks, digits} over a range; integers get bins of whole width around them. */
export function axisOf({ low, high }, column) {
  if (column.integer) {
    const [first, last] = [Math.floor(low), Math.ceil(high)];
    const width = Math.ceil((last - first + 1) / N_BINS);
    const nBins = Math.ceil((last - first + 1) / width);
    return {
      low: first - 0.5,
      high: first - 0.5 + nBins * width,
      nBins,
      nTicks: Math.min(5, last - first + 1),
      digits: 0,
    };
  }
  const pad = low === high ? Math.abs(low) / 2 || 0.5 : 0;
  const span = high - low + 2 * pad;
  const digits = Math.min(Math.max(Math.ceil(2.5 - Math.log10(span)), 0), 12); // of a value that is dragged
  return { low: low - pad, high: high + pad, nBins: N_BINS, nTicks: 5, digits };
}

/** Neurons in each bin, layer after layer. What lies beyond the axis is in the bins at its ends. */
export function countBins(values, mask, { low, high, nBins }, { n_layers, d_mlp }) {
  const counts = new Uint32Array(n_layers * nBins);
  const perUnit = nBins / (high - low);
  for (let id = 0; id < values.length; id++) {
    if (Number.isNaN(values[id]) || (mask && !mask[id])) continue;
    const bin = Math.min(Math.max(Math.floor((values[id] - low) * perUnit), 0), nBins - 1);
    counts[Math.floor(id / d_mlp) * nBins + bin] += 1;
  }
  return counts;
}

/** The outline of a layer's bins as an SVG path, standing on y = base. */
export function heightsPath(counts, layer, { low, high, nBins }, scale, base, perCount) {
  const step = (high - low) / nBins;
  const parts = [`M${scale(low).toFixed(1)} ${base}`];
  for (let bin = 0; bin < nBins; bin++) {
    const y = (base - counts[layer * nBins + bin] * perCount).toFixed(1);
    parts.push(`V${y}H${scale(low + (bin + 1) * step).toFixed(1)}`);
  }
  return `${parts.join("")}V${base}Z`;
}
