// The measures of all neurons: which there are, their values as arrays, and how far those spread.

import { useMemo } from "../vendor/hooks.js";
import { useShards } from "./data.js";
import { hasSides, isNegative, numberOf } from "./sides.js";

const PLACE = [
  { name: "layer", title: "Layer", help: "Index of the layer.", integer: true, unit: "" },
  { name: "neuron", title: "Neuron", help: "Index of the neuron in its layer.", integer: true, unit: "" },
];

const SIDE = { name: "side", title: "Side", help: "1: the positive side, −1: the negative.", isSign: true, unit: "" };

/** What neurons can be filtered and sorted by: their place, then the atlas's measures. */
const allColumns = (atlas) => [...PLACE, ...(hasSides() ? [SIDE] : []), ...atlas.columns];

/** One of them, or undefined. */
export const columnNamed = (atlas, name) => allColumns(atlas).find((column) => column.name === name);

/**
 * Values of some columns for every neuron, by id: {columns: {name: Float64Array}, error, stale}. NaN: there is none.
 * Only what is named is fetched. While more is on its way `columns` holds what was there before; null at the start.
 */
export function useColumns(atlas, names) {
  const measured = [...new Set(names)].filter((name) => atlas.columns.some((column) => column.name === name)).sort();
  const { data, error, stale, names: loaded } = useShards(measured.map((name) => `columns/${name}`));
  const columns = useMemo(() => data && { ...places(atlas), ...named(loaded, data) }, [atlas, data]);
  return { columns, error, stale };
}

const named = (loaded, data) =>
  Object.fromEntries(data.map((values, i) => [loaded.split("|")[i].replace("columns/", ""), numbers(values)]));

/** A function of an array (or object) that computes once for each. */
function once(compute) {
  const known = new WeakMap();
  return (key) => {
    if (!known.has(key)) known.set(key, compute(key));
    return known.get(key);
  };
}

const numbers = once((values) => {
  const array = new Float64Array(values.length);
  for (let i = 0; i < array.length; i++) array[i] = values[i] ?? NaN;
  return array;
});

const places = once(({ n_neurons, d_mlp }) => {
  const layer = new Float64Array(n_neurons);
  const neuron = new Float64Array(n_neurons);
  const side = new Float64Array(n_neurons);
  for (let id = 0; id < n_neurons; id++) {
    layer[id] = Math.floor(id / d_mlp);
    neuron[id] = numberOf(id % d_mlp);
    side[id] = isNegative(id % d_mlp) ? -1 : 1;
  }
  return { layer, neuron, side };
});

/** How values other than NaN spread: {n, min, low, high, max}; low and high are the 1st and 99th percentile. */
export const spread = once((values) => {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort();
  return {
    n: sorted.length,
    min: quantile(sorted, 0),
    low: quantile(sorted, 0.01),
    high: quantile(sorted, 0.99),
    max: quantile(sorted, 1),
  };
});

/** The median of each layer, NaN for a layer without values. */
export function medians(values, { n_layers, d_mlp }) {
  return Array.from({ length: n_layers }, (_, layer) => {
    const own = values.slice(layer * d_mlp, (layer + 1) * d_mlp).filter((value) => !Number.isNaN(value));
    return quantile(own.sort(), 0.5);
  });
}

function quantile(sorted, share) {
  if (!sorted.length) return NaN;
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  return sorted[below] + (at - below) * (sorted[Math.ceil(at)] - sorted[below]);
}

/** The name that is asked for if there is such a measure, else the usual one. */
export function chosenMeasure(atlas, name) {
  const find = (wanted) => atlas.columns.find((column) => column.name === wanted);
  return find(name) ?? find("mean_distance") ?? atlas.columns[0];
}
