// Search: sequences that hold a phrase, and features that peak inside it. The server is asked where there is one; a
// static site has the same index as files, by the first two characters of a word. Both give the same answer.

import { ask, shard, ShardError } from "./data.js";
import { counted } from "./format.js";
import { readings } from "./words.js";

export const PAGE = 20; // sequences in an answer
export const PEAKS_PAGE = 50; // features
const FRAGMENT = 2 ** 29; // a peak from here on is at a token that is a part of a word
export const LONGEST_QUERY = 1000; // characters; the server refuses longer ones

/** Why a query cannot be looked for, in words; "" if it can. */
function refusal(query) {
  const { length } = [...query];
  const most = LONGEST_QUERY.toLocaleString("en-US");
  if (length > LONGEST_QUERY)
    return `This text has ${counted(length, "character")}; at most ${most} can be searched for.`;
  const isTooShort = readings(query).some(({ terms, isPrefix }) => isPrefix && [...terms.at(-1)].length < 2);
  return isTooShort ? "The beginning of a word needs at least two letters before the *." : "";
}

/**
 * {query, n_sequences, sequences: up to 20 from `offset` on, n_peaks, peaks: up to 50 from `peaksOffset` on, each
 * [layer, neuron, feature, n, n_examples]}, the best first.
 */
export async function find(atlas, query, offset = 0, peaksOffset = 0) {
  const refused = refusal(query);
  if (refused) throw new ShardError(refused, 400);
  if (atlas.search === "server") return ask("search", { q: query, offset, peaks_offset: peaksOffset });
  const { sequences, peaks } = await ranked(query);
  return {
    query,
    n_sequences: sequences.length,
    sequences: sequences.slice(offset, offset + PAGE),
    n_peaks: peaks.length,
    peaks: peaks.slice(peaksOffset, peaksOffset + PEAKS_PAGE),
  };
}

/** All sequences and all features, as the server ranks them. */
async function ranked(query) {
  const phrases = readings(query);
  const starts = await Promise.all(phrases.map(startsOf));
  const peaksIn = new Map(starts.flatMap((places) => [...places.keys()]).map((sequence) => [sequence, 0]));
  const found = new Map(); // place of a feature -> {place, n_examples, sequences: of its examples that peak inside}
  for (const [i, phrase] of phrases.entries()) await addPeaks(phrase, starts[i], found);
  for (const { sequences } of found.values()) {
    for (const sequence of sequences) {
      if (peaksIn.has(sequence)) peaksIn.set(sequence, peaksIn.get(sequence) + 1);
    }
  }
  const sequences = [...peaksIn].sort(([a, n], [b, m]) => m - n || a - b).map(([sequence]) => sequence);
  const peaks = [...found.values()].map(({ place, n_examples, sequences }) => [...place, sequences.size, n_examples]);
  peaks.sort((a, b) => b[3] - a[3] || a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
  return { sequences, peaks };
}

/** Where a phrase stands: Map of sequence -> Set of where its first term is. */
async function startsOf({ terms, offsets, isPrefix }) {
  const places = await Promise.all(terms.map((term, k) => placesOf(term, isPrefix && k === terms.length - 1)));
  const [first, ...others] = places;
  const found = new Map();
  for (const [sequence, starts] of first) {
    const held = [...starts].filter((at) => others.every((place, k) => place.get(sequence)?.has(at + offsets[k + 1])));
    if (held.length) found.set(sequence, new Set(held));
  }
  return found;
}

/** Add the features that peak inside a phrase where it stands: at a term or between two. A neuron has one example in a sequence. */
async function addPeaks({ terms, offsets, isPrefix }, starts, found) {
  for (const [k, term] of terms.entries()) {
    const held = await bucket("peaks", term);
    for (const name of namesIn(held, term, isPrefix && k === terms.length - 1)) {
      for (const [layer, neuron, feature, n_examples, ...places] of own(held, name) ?? []) {
        const id = `${layer}/${neuron}/${feature}`;
        for (let i = 0; i < places.length; i += 2) {
          const where = places[i + 1];
          const isBehind = where < 0; // in the gap behind the word, which is inside but for the last one's
          if (isBehind && k === terms.length - 1) continue;
          const isInside =
            where >= FRAGMENT
              ? terms.length === 1
              : starts.get(places[i])?.has((isBehind ? -1 - where : where) - offsets[k]);
          if (!isInside) continue;
          if (!found.has(id)) found.set(id, { place: [layer, neuron, feature], n_examples, sequences: new Set() });
          found.get(id).sequences.add(places[i]);
        }
      }
    }
  }
}

/** Where a term stands: Map of sequence -> Set of places in it. */
async function placesOf(term, isPrefix) {
  const held = await bucket("words", term);
  const places = new Map();
  for (const name of namesIn(held, term, isPrefix)) {
    const listed = own(held, name) ?? [];
    for (let i = 0; i < listed.length; i += 2) {
      const known = places.get(listed[i]);
      if (known) listed[i + 1].forEach((at) => known.add(at));
      else places.set(listed[i], new Set(listed[i + 1]));
    }
  }
  return places;
}

const namesIn = (held, term, isPrefix) =>
  isPrefix ? Object.keys(held).filter((name) => name.startsWith(term)) : [term];

/** The file that a term is in; where there is none, there is no such term. */
async function bucket(kind, term) {
  const name = [...term].slice(0, 2).map((character) => character.codePointAt(0).toString(16)).join("-");
  return shard(`search/${kind}/${name}`).catch((error) => {
    if (error.status === 404) return {};
    throw error;
  });
}

// A word such as "constructor" is no property that every object has.
const own = (table, word) => (Object.hasOwn(table, word) ? table[word] : undefined);
