// What of texts and queries can be searched for, by the same rule as the atlas's own index (nejax/atlas/terms.py).

// Python's idea of white space: JavaScript's differs at U+001C to U+001F, U+0085 and U+FEFF.
const SPACES = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const OUTER_SPACE = new RegExp(`^[${SPACES}]+|[${SPACES}]+$`, "g");
const UNSPACED =
  "\\u0e00-\\u109f\\u1780-\\u17ff\\u1950-\\u19df\\u1a20-\\u1aaf\\u1b00-\\u1b7f\\u3005-\\u3007\\u3021-\\u3029" +
  "\\u3031-\\u303c\\u3040-\\u312f\\u31a0-\\u31bf\\u31f0-\\u31ff\\u3400-\\u4dbf\\u4e00-\\ua4cf\\ua980-\\ua9ff" +
  "\\uaa60-\\uaadf\\uf900-\\ufaff\\uff66-\\uff9f\\u{1aff0}-\\u{1b16f}\\u{20000}-\\u{3ffff}";
const RUN = `(?=[${UNSPACED}])[\\p{L}\\p{N}\\p{M}]|(?:(?![${UNSPACED}])[\\p{L}\\p{N}])+`;
const IS_ONE = new RegExp(`^[${UNSPACED}]`, "u");
const SIGN = new RegExp(`[${SPACES}]{2,}|[^ ]`, "gsu");
const SHOWN = new Map([
  ["⏎", "\n"], ["␍", "\r"], ["⇥", "\t"], ["⍽", "\u00a0"], ["·", " "], ["␡", "\x7f"],
  ["⟨ZWSP⟩", "\u200b"], ["⟨BOM⟩", "\ufeff"], ["⟨LS⟩", "\u2028"], ["⟨PS⟩", "\u2029"],
]);
const SHOWN_SIGN = /[⏎␍⇥⍽·␡]|[\u2400-\u2408\u240b\u240c\u240e-\u241f]|⟨(?:ZWSP|BOM|LS|PS|U\+[0-9A-F]{4,6})⟩/g;

const runs = (text) => text.matchAll(new RegExp(RUN, "gu"));
const stripped = (text) => text.replaceAll(OUTER_SPACE, "");

/** The lower-cased words of a text; of scripts that are written without spaces each letter, digit or mark is one. */
export const words = (text) => [...runs(text)].flatMap(({ 0: run }) => foldedWords(run));

/**
 * The terms of a text: [{text, isSign, at, start, end}]. `at`: of a word how many there are before it, of a sign how
 * many code points. `start`, `end`: UTF-16 units. Signs are all that is no word, but for a single space.
 */
function terms(text) {
  const found = [];
  let count = 0;
  let end = 0;
  let points = 0; // code points before `end`
  const addSigns = (stop) => {
    const gap = text.slice(end, stop);
    if (gap !== " ") {
      for (const { 0: signs, index } of gap.matchAll(SIGN)) {
        let start = end + index;
        let at = points + [...gap.slice(0, index)].length;
        for (const sign of signs) {
          found.push({ text: sign, isSign: true, at: at++, start, end: start + sign.length });
          start += sign.length;
        }
      }
    }
    points += [...gap].length;
    end = stop;
  };
  for (const { 0: run, index } of runs(text)) {
    addSigns(index);
    for (const word of foldedWords(run)) {
      found.push({ text: word, isSign: false, at: count++, start: index, end: index + run.length });
    }
    points += [...run].length;
    end = index + run.length;
  }
  addSigns(text.length);
  return found;
}

/**
 * What a query asks for: its words, or without any its signs, as typed and as what the pages show them for:
 * [{terms, offsets, isSigns, isPrefix}], `offsets` from the first in the measure of a term's `at`.
 */
export function readings(query) {
  const isPrefix = stripped(query).endsWith("*");
  const asked = [phraseOf(stripped(query) || query, isPrefix), phraseOf(hidden(query), false)];
  const some = asked.filter(({ terms }) => terms.length);
  const isSame = some.length === 2 && some[0].terms.join("\0") === some[1].terms.join("\0");
  return isSame || (some.length === 2 && !some[1].isSigns) ? some.slice(0, 1) : some;
}

const hidden = (text) =>
  text.replaceAll(SHOWN_SIGN, (sign) => {
    if (SHOWN.has(sign)) return SHOWN.get(sign);
    const code = sign.startsWith("⟨") ? parseInt(sign.slice(3, -1), 16) : sign.charCodeAt(0) - 0x2400;
    return String.fromCodePoint(Math.min(code, 0x10ffff));
  });

function phraseOf(query, isPrefix) {
  const found = terms(query);
  const ofWords = found.filter(({ isSign }) => !isSign);
  const some = ofWords.length ? ofWords : found;
  const isSigns = !ofWords.length && found.length > 0;
  return {
    terms: some.map(({ text }) => text),
    offsets: some.map(({ at }) => at - some[0].at),
    isSigns,
    isPrefix: isPrefix && ofWords.length > 0 && !IS_ONE.test(some.at(-1).text),
  };
}

function foldedWords(run) {
  const lower = run.toLowerCase();
  if (/^[\x00-\x7f]*$/.test(lower)) return [lower];
  return [...runs(lower)].map(({ 0: word }) => [...word].map(folded).join(""));
}

/** Letters that have two lower cases, such as the two sigmas, are one. */
function folded(letter) {
  const other = letter.toUpperCase().toLowerCase();
  return letter !== "ı" && other.length === letter.length ? other : letter;
}

/**
 * Where a query stands in a run of tokens, pieces [{text}]: [{start, end, first, last}], characters of the joined text
 * (`end` is behind the last) and the tokens that they are of. A word may span tokens, and a token hold several words.
 */
export function phraseSpans(pieces, query) {
  const found = terms(pieces.map(({ text }) => text).join(""));
  const tokenOf = tokenFinder(pieces);
  const spans = readings(query).flatMap((phrase) => spansOf(found.filter(({ isSign }) => isSign === phrase.isSigns), phrase));
  return spans
    .sort((a, b) => a.start - b.start || a.end - b.end)
    .map(({ start, end }) => ({ start, end, first: firstOf(pieces, tokenOf(start)), last: tokenOf(end - 1) }));
}

function spansOf(found, { terms, offsets, isPrefix }) {
  const isAt = (i) =>
    terms.every((term, k) => {
      const there = found[i + k];
      if (there?.at !== found[i].at + offsets[k]) return false;
      return isPrefix && k === terms.length - 1 ? there.text.startsWith(term) : there.text === term;
    });
  const spans = [];
  for (let i = 0; i + terms.length <= found.length; i++) {
    if (isAt(i)) spans.push({ start: found[i].start, end: found[i + terms.length - 1].end });
  }
  return spans;
}

/** Tokens before it that have no text of their own are the beginning of its first character. */
function firstOf(pieces, token) {
  while (token > 1 && pieces[token - 1].text === "") token--;
  return token;
}

/** character of the joined text -> its token; asked for in ascending order or not. */
function tokenFinder(pieces) {
  const ends = [];
  let length = 0;
  for (const { text } of pieces) ends.push((length += text.length));
  return (character) => ends.findIndex((end) => character < end);
}
