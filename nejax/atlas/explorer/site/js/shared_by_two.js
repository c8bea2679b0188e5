// What two places, each a feature or a neuron, have in common.

import { counted, decimal } from "./format.js";
import { html } from "./html.js";
import { peakTokens } from "./peak_chips.js";
import { placeId, placeShort } from "./place.js";
import { to } from "./route.js";
import { peakName, visible } from "./tokens.js";

const SHOWN = 12;

/** Peak tokens in common, examples in the same sequences, similar features. a, b: {place, neuron}. */
export function Shared({ a, b }) {
  if (placeId(a.place) === placeId(b.place))
    return html`<section class="shared"><p class="soft">Both sides are the same.</p></section>`;
  const peaks = commonPeaks(a, b);
  const places = commonPlaces(a, b);
  const pairs = similarPairs(a, b);
  const same = places.filter(({ isSame }) => isSame).length;
  return html`<section class="shared" aria-labelledby="shared-title">
    <h2 id="shared-title">In common</h2>
    <dl>
      <dt>Similarity</dt>
      <dd>
        ${pairs.length === 0 && html`<span class="soft">${withoutPairs(a.place, b.place)}</span>`}
        ${pairs.slice(0, SHOWN).map(([left, right, similarity]) => {
          const both = pairs.length > 1 || left !== placeId(a.place) ? `${short(left)} and ${short(right)}: ` : "";
          return html`<a key=${left + right} class="shared-item" href=${to.compare(left, right)}
            >${both}${decimal(similarity)}</a>`;
        })}
        ${more(pairs)}
      </dd>
      <dt>Peak tokens</dt>
      <dd>
        ${peaks.length === 0 && html`<span class="soft">None of their most frequent ones.</span>`}
        ${peaks.slice(0, SHOWN).map(
          ([text, n, m]) => html`<span key=${text} class="chip">
            <span class="chip-text">${peakName(text)}</span><span class="count">${n} and ${m}</span>
          </span>`,
        )}
        ${more(peaks)}
      </dd>
      <dt>Sequences</dt>
      <dd>
        ${
          places.length === 0
            ? html`<span class="soft">No example of one is in a sequence of the other.</span>`
            : html`<span>${counted(places.length, "sequence")}, ${same} with a peak at the same token: </span>`
        }
        ${places.slice(0, SHOWN).map(
          ({ sequence, position, document, isSame }) =>
            html`<a key=${sequence} class="shared-item" href=${to.sequence(sequence, { at: position })}
              title=${isSame ? "The same token" : "Different tokens"}
              ><bdi>${visible(document)}</bdi> ${sequence}:${position}${isSame ? " =" : ""}</a>`,
        )}
        ${more(places)}
      </dd>
    </dl>
  </section>`;
}

/** "3/81/0" as a person reads it. */
function short(id) {
  const [layer, neuron, feature = null] = id.split("/").map(Number);
  return placeShort({ layer, neuron, feature });
}

const withoutPairs = (a, b) =>
  a.layer === b.layer && a.neuron === b.neuron
    ? "Both are of one neuron; only features of different neurons are listed as similar."
    : "Neither lists the other among its similar features.";

const more = (list) => list.length > SHOWN && html`<span class="faint">and ${list.length - SHOWN} more</span>`;

/** [text, examples of a, examples of b] of peak tokens that both have; case and white space around do not count. */
function commonPeaks(a, b) {
  const word = (text) => text.trim().toLowerCase() || text;
  const counts = ({ neuron, place }) => {
    const found = new Map();
    for (const [text, n] of peakTokens(neuron, place)) found.set(word(text), (found.get(word(text)) ?? 0) + n);
    return found;
  };
  const others = counts(b);
  const both = [...counts(a)].filter(([text]) => others.has(text)).map(([text, n]) => [text, n, others.get(text)]);
  return both.sort((one, two) => Math.min(two[1], two[2]) - Math.min(one[1], one[2]));
}

/** The sequences that hold examples of both, those with a peak at the same token first. */
function commonPlaces(a, b) {
  const own = ({ neuron, place }) =>
    neuron.examples.filter(({ feature }) => place.feature === null || feature === place.feature);
  const others = own(b);
  const found = new Map();
  for (const { sequence, position, document } of own(a)) {
    const here = others.filter((example) => example.sequence === sequence);
    const isSame = here.some((example) => example.position === position);
    if (here.length && !found.get(sequence)?.isSame) found.set(sequence, { sequence, position, document, isSame });
  }
  return [...found.values()].sort((one, two) => two.isSame - one.isSame);
}

/** [id in a, id in b, similarity] of features that either lists as similar, the most similar first. */
function similarPairs(a, b) {
  const found = new Map();
  const add = (from, into, ordered) => {
    from.neuron.features.forEach(({ similar }, feature) => {
      if (from.place.feature !== null && feature !== from.place.feature) return;
      for (const [layer, neuron, other, similarity] of similar) {
        const isThere = layer === into.place.layer && neuron === into.place.neuron;
        if (!isThere || (into.place.feature !== null && other !== into.place.feature)) continue;
        const ids = ordered([placeId({ ...from.place, feature }), placeId({ layer, neuron, feature: other })]);
        found.set(ids.join(), [...ids, similarity]);
      }
    });
  };
  add(a, b, (ids) => ids);
  add(b, a, (ids) => ids.reverse());
  return [...found.values()].sort((one, two) => two[2] - one[2]);
}
