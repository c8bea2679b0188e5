// Ranges that neurons are filtered by, as they stand in an address: "mean_distance:0.5..0.8,layer:2..".

import { columnNamed } from "./columns.js";
import { shown } from "./format.js";

const RANGE = /^(\w+):(.*?)\.\.(.*)$/;

/** Ranges [{name, low, high}] from an address, an open end null. What makes no sense is left out. */
export function parseWhere(atlas, text = "") {
  const ranges = new Map();
  for (const part of text.split(",")) {
    const [, name, low, high] = part.match(RANGE) ?? [];
    if (columnNamed(atlas, name)) ranges.set(name, { name, low: end(low), high: end(high) });
  }
  return [...ranges.values()].filter(({ low, high }) => low !== null || high !== null);
}

const end = (text) => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : null);

/** The address's form of ranges, "" for none. */
export const formatWhere = (ranges) =>
  ranges.map(({ name, low, high }) => `${name}:${low ?? ""}..${high ?? ""}`).join();

/** Ranges in which one measure's is replaced; one without ends is removed. */
export function withRange(ranges, name, low, high) {
  const range = { name, low, high };
  const all = ranges.some((one) => one.name === name)
    ? ranges.map((one) => (one.name === name ? range : one))
    : [...ranges, range];
  return all.filter((one) => one.low !== null || one.high !== null);
}

/** Which neurons are in all ranges: a Uint8Array of 0 and 1, and how many are 1. Null while a column is missing. */
export function inside(columns, ranges, nNeurons) {
  if (ranges.some(({ name }) => !columns[name])) return null;
  const mask = new Uint8Array(nNeurons).fill(1);
  for (const { name, low, high } of ranges) {
    const values = columns[name];
    const [least, most] = [low ?? -Infinity, high ?? Infinity];
    for (let id = 0; id < nNeurons; id++) if (!(values[id] >= least && values[id] <= most)) mask[id] = 0;
  }
  return { mask, n: mask.reduce((sum, one) => sum + one, 0) };
}

/** A range in words: "Layer 2 to 3", "Mean distance at least 0.5". */
export function describeRange(column, { low, high }) {
  const [from, upTo] = [shown(low, column), shown(high, column)];
  if (low === null) return `${column.title} at most ${upTo}`;
  if (high === null) return `${column.title} at least ${from}`;
  return low === high ? `${column.title} ${from}` : `${column.title} ${from} to ${upTo}`;
}
