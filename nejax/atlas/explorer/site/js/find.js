// Search: sequences that hold a phrase, and features that peak at a token. The server is asked where there is one; a
// static site has the same index as files, by the first two characters of a word. Both give the same answer.

import { ask, shard, ShardError } from "./data.js";
import { counted } from "./format.js";
import { asked, peakWord } from "./words.js";

export const PAGE = 20; // sequences in an answer
export const LONGEST_QUERY = 1000; // characters; the server refuses longer ones

/** Why a query cannot be looked for, in words; "" if it can. */
function refusal(query) {
  const { length } = [...query];
  const most = LONGEST_QUERY.toLocaleString("en-US");
  if (length > LONGEST_QUERY)
    return `This text has ${counted(length, "character")}; at most ${most} can be searched for.`;
  const { phrase, isPrefix } = asked(query);
  const isTooShort = isPrefix && phrase.length && [...phrase.at(-1)].length < 2;
  return isTooShort ? "The beginning of a word needs at least two letters before the *." : "";
}

/** {query, n_sequences, sequences: up to 20 from `offset` on, peaks: [[layer, neuron, feature, n, n_examples]]}. */
export async function find(atlas, query, offset = 0) {
  const refused = refusal(query);
  if (refused) throw new ShardError(refused, 400);
  if (atlas.search === "server") return ask("search", { q: query, offset });
  const [sequences, peaks] = await Promise.all([sequencesWith(query), peaksAt(query)]);
  return { query, n_sequences: sequences.length, sequences: sequences.slice(offset, offset + PAGE), peaks };
}

async function peaksAt(query) {
  const word = peakWord(query);
  return own(await bucket("peaks", word), word) ?? [];
}

/** All sequences in which the words of the query follow each other, ascending. */
async function sequencesWith(query) {
  const { phrase, isPrefix } = asked(query);
  if (!phrase.length) return [];
  const places = await Promise.all(phrase.map((word, k) => placesOf(word, isPrefix && k === phrase.length - 1)));
  const [first, ...others] = places;
  const holds = (sequence) =>
    [...first.get(sequence)].some((at) => others.every((place, k) => place.get(sequence)?.has(at + k + 1)));
  return [...first.keys()].filter(holds).sort((a, b) => a - b);
}

/** Where a word stands: Map of sequence -> Set of which of its words it is. */
async function placesOf(word, isPrefix) {
  const held = await bucket("words", word);
  const names = isPrefix ? Object.keys(held).filter((name) => name.startsWith(word)) : [word];
  const places = new Map();
  for (const name of names) {
    const listed = own(held, name) ?? [];
    for (let i = 0; i < listed.length; i += 2) {
      const known = places.get(listed[i]);
      if (known) listed[i + 1].forEach((at) => known.add(at));
      else places.set(listed[i], new Set(listed[i + 1]));
    }
  }
  return places;
}

/** The file that a word is in; where there is none, there is no such word. */
async function bucket(kind, word) {
  const name = [...word].slice(0, 2).map((character) => character.codePointAt(0).toString(16)).join("-");
  return shard(`search/${kind}/${name}`).catch((error) => {
    if (error.status === 404) return {};
    throw error;
  });
}

// A word such as "constructor" is no property that every object has.
const own = (table, word) => (Object.hasOwn(table, word) ? table[word] : undefined);
