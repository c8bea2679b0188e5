// The words of texts and queries, by the same rule as the atlas's own index of words, so that both find the same.

// Python's idea of white space: JavaScript's differs at U+001C to U+001F, U+0085 and U+FEFF.
const SPACE = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+";
const OUTER_SPACE = new RegExp(`^${SPACE}|${SPACE}$`, "g");

/** Lower-cased runs of letters and digits. */
export const words = (text) => (text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []).map(folded);

/** A peak token as it is searched for: in lower case, without white space around it unless there is nothing else. */
export const peakWord = (text) => text.replaceAll(OUTER_SPACE, "").toLowerCase() || text;

/** What a query asks for: {phrase: its words, isPrefix: whether the last may be the beginning of a word}. */
export const asked = (query) => ({ phrase: words(query), isPrefix: query.replaceAll(OUTER_SPACE, "").endsWith("*") });

/** Letters that have two lower cases, such as the two sigmas, are one letter to the index. */
function folded(word) {
  if (/^[\x00-\x7f]*$/.test(word)) return word;
  return [...word].map((letter) => (letter === "ı" ? letter : other(letter))).join("");
}

function other(letter) {
  const lower = letter.toUpperCase().toLowerCase();
  return lower.length === letter.length ? lower : letter;
}

/**
 * Where a phrase stands in a run of tokens, pieces [{text}]: [{start, end, first, last}], characters of the joined text
 * (`end` is behind the last) and the tokens that they are of. A word may span tokens, and a token hold several words.
 */
export function phraseSpans(pieces, query) {
  const { phrase, isPrefix } = asked(query);
  if (!phrase.length) return [];
  const found = [...pieces.map(({ text }) => text).join("").matchAll(/[\p{L}\p{N}]+/gu)].flatMap(({ 0: run, index }) =>
    words(run).map((word) => ({ word, start: index, end: index + run.length })),
  );
  const isAt = (i) =>
    phrase.every((word, k) => {
      const there = found[i + k]?.word;
      return isPrefix && k === phrase.length - 1 ? there?.startsWith(word) : there === word;
    });
  const tokenOf = tokenFinder(pieces);
  const spans = [];
  for (let i = 0; i + phrase.length <= found.length; i++) {
    if (!isAt(i)) continue;
    const { start } = found[i];
    const { end } = found[i + phrase.length - 1];
    spans.push({ start, end, first: tokenOf(start), last: tokenOf(end - 1) });
  }
  return spans;
}

/** character of the joined text -> its token; asked for in ascending order or not. */
function tokenFinder(pieces) {
  const ends = [];
  let length = 0;
  for (const { text } of pieces) ends.push((length += text.length));
  return (character) => ends.findIndex((end) => character < end);
}
