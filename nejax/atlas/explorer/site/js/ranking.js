// The order of neurons by a measure. Neurons without a value come last, equal ones by their id.

const known = new WeakMap(); // values -> {descending or ascending: ids}

/** Ids of all neurons, sorted by a column. */
export function ranked(values, descending) {
  const own = known.get(values) ?? {};
  known.set(values, own);
  return (own[descending] ??= sorted(values, descending));
}

function sorted(values, descending) {
  const sign = descending ? -1 : 1;
  const ids = Uint32Array.from(values.keys());
  const there = ids.filter((id) => !Number.isNaN(values[id]));
  const missing = ids.filter((id) => Number.isNaN(values[id]));
  there.sort((a, b) => sign * (values[a] - values[b]) || a - b);
  ids.set(there);
  ids.set(missing, there.length);
  return ids;
}

/** The ids of each layer's neurons, layer after layer: by index (`values` null) or the highest value first. */
export function withinLayers(values, { n_layers, d_mlp }) {
  if (!values) return Uint32Array.from({ length: n_layers * d_mlp }, (_, id) => id);
  const order = new Uint32Array(n_layers * d_mlp);
  const next = Uint32Array.from({ length: n_layers }, (_, layer) => layer * d_mlp);
  for (const id of ranked(values, true)) order[next[Math.floor(id / d_mlp)]++] = id;
  return order;
}

/** Where each id stands in an order. */
export function placesIn(order) {
  const places = new Uint32Array(order.length);
  order.forEach((id, place) => (places[id] = place));
  return places;
}
