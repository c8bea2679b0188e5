// One text that a search found: the words around the match, and the features that peak in it.

import { useState } from "../vendor/hooks.js";
import { decimal, featureName } from "./format.js";
import { html } from "./html.js";
import { placeShort } from "./place.js";
import { to } from "./route.js";
import { strongestOfEach } from "./sequences.js";
import { visible } from "./tokens.js";
import { phraseSpans } from "./words.js";

const BEFORE = 80; // characters around the match
const AFTER = 110;
const FIRST_CHIPS = 6;

/** A sequence (from `readSequence`) that holds the phrase of `query`. */
export function Match({ number, sequence, query }) {
  const texts = sequence.pieces.map((piece, i) => (i ? piece : { ...piece, text: "" })); // without BOS
  const spans = phraseSpans(texts, query);
  const [span] = spans;
  const within = ({ position }) => spans.some(({ first, last }) => first <= position && position <= last);
  const features = strongestOfEach(sequence.examples.filter(within));
  const address = to.sequence(number, { at: features[0]?.position ?? span?.last, q: query });
  const name = visible(sequence.document);
  return html`<li class="match" data-sequence=${number}>
    <p class="match-place">
      <a href=${address} aria-label=${`Sequence ${number}, in ${name}`}>${name}</a>
      <span class="faint">sequence ${number}${spans.length > 1 && ` · ${spans.length} times`}</span>
    </p>
    ${span && html`<${Snippet} text=${texts.map(({ text }) => text).join("")} ...${span} />`}
    <${FeatureChips} features=${features} />
  </li>`;
}

/** The text around the characters `start` to `end`, which are marked. */
function Snippet({ text, start, end }) {
  const before = [...text.slice(Math.max(0, start - 2 * BEFORE), start)].slice(-BEFORE).join("");
  const after = [...text.slice(end, end + 2 * AFTER)].slice(0, AFTER).join("");
  const isCut = { before: before.length < start, after: end + after.length < text.length };
  return html`<p class="snippet" dir="auto">
    ${isCut.before && "… "}${line(isCut.before ? before.replace(/^\S{1,20}\s/, "") : before)}<mark
      >${line(text.slice(start, end))}</mark
    >${line(isCut.after ? after.replace(/\s\S{1,20}$/, "") : after)}${isCut.after && " …"}
  </p>`;
}

/** Text that may be broken after a sign for a line break. */
const line = (text) => visible(text).replaceAll("⏎", "⏎ ");

function FeatureChips({ features }) {
  const [all, setAll] = useState(false);
  if (!features.length) return html`<p class="match-features faint">No feature peaks here.</p>`;
  const rest = features.length - FIRST_CHIPS;
  return html`<p class="match-features">
    ${features.slice(0, all ? undefined : FIRST_CHIPS).map((feature) => html`<${FeatureChip} ...${feature} />`)}
    ${rest > 0 &&
    html`<button type="button" class="more" aria-expanded=${all} onClick=${() => setAll(!all)}>
      ${all ? "fewer" : `${rest} more`}
    </button>`}
  </p>`;
}

function FeatureChip({ layer, neuron, feature, activation }) {
  const title = `${featureName(layer, neuron, feature)}; activation ${decimal(activation)}`;
  return html`<a class="chip" href=${to.feature(layer, neuron, feature)} title=${title}
    >${placeShort({ layer, neuron, feature })} <span class="count">${decimal(activation)}</span></a
  >`;
}
