// The atlas's JSON shards: fetched once each, the latest ones kept.

import { useEffect, useState } from "../vendor/hooks.js";
import { setSides } from "./sides.js";

const ROOT = "data/v1/";
const KEPT = 60;
const shards = new Map(); // name -> promise, the least recently used first
let compressed = false;

/** What went wrong with a shard, in one line for a person. `status` is that of HTTP, 0 where there was no answer. */
export class ShardError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The description of the whole atlas; it says how the other shards are stored. */
export async function openAtlas() {
  const atlas = await read(`${ROOT}atlas.json`);
  if (atlas.version !== 1) {
    const said = `This atlas's data has version ${atlas.version}; these pages read version 1. Reload the page.`;
    throw new ShardError(said, 0);
  }
  compressed = atlas.compressed;
  setSides(atlas);
  return atlas;
}

/** One shard, such as "neurons/3/185" or "columns/mean_distance". */
export function shard(name) {
  const found = shards.get(name) ?? read(`${ROOT}${name}.json${compressed ? ".gz" : ""}`);
  shards.delete(name);
  shards.set(name, found);
  found.catch(() => shards.delete(name));
  if (shards.size > KEPT) shards.delete(shards.keys().next().value);
  return found;
}

/** An answer of the server that is no file: `search?q=...`. */
export const ask = (name, query) => read(`${ROOT}${name}?${new URLSearchParams(query)}`);

/**
 * Several shards while a component is shown: {data: [..] or null, error, stale}. The former data stays, `stale`, until
 * the new is there.
 */
export function useShards(names) {
  const [state, setState] = useState({ data: null, error: null, names: null });
  const key = names.join("|");
  useEffect(() => {
    let current = true;
    Promise.all(names.map(shard)).then(
      (data) => current && setState({ data, error: null, names: key }),
      (error) => current && setState({ data: null, error, names: key }),
    );
    return () => (current = false);
  }, [key]);
  return { ...state, stale: state.names !== key };
}

async function read(address) {
  let response;
  try {
    response = await fetch(address);
  } catch {
    throw new ShardError("The server does not answer. Is it still running?", 0);
  }
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new ShardError(said.error ?? `${address}: ${response.status} ${response.statusText}`, response.status);
  }
  return parsed(await response.arrayBuffer(), address);
}

/** JSON from bytes. Some file servers unpack .gz files on the way, so the bytes themselves tell. */
async function parsed(buffer, address) {
  const [first, second] = new Uint8Array(buffer, 0, Math.min(2, buffer.byteLength));
  const isGzip = first === 0x1f && second === 0x8b;
  const stream = new Blob([buffer]).stream();
  try {
    return await new Response(isGzip ? stream.pipeThrough(new DecompressionStream("gzip")) : stream).json();
  } catch {
    throw new ShardError(`${address} is damaged: it is not JSON. Export or build the atlas again.`, 0);
  }
}
