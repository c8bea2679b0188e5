// The peak tokens of a feature or of a neuron: as chips that search for them, or in a line, fetched when it is seen.

import { useShards } from "./data.js";
import { LONGEST_QUERY } from "./find.js";
import { counted } from "./format.js";
import { html } from "./html.js";
import { useInView } from "./in_view.js";
import { missingFeature } from "./place.js";
import { to } from "./route.js";
import { mergedPeaks, peakName } from "./tokens.js";

/** The peak tokens [[text, count], ...] of a place of a loaded neuron, most frequent first. */
export const peakTokens = ({ features }, { feature }) =>
  mergedPeaks(feature === null ? features.flatMap((one) => one.peak_tokens) : (features[feature]?.peak_tokens ?? []));

/** How many examples a place of a loaded neuron has. */
export const exampleCount = ({ features, examples }, { feature }) =>
  feature === null ? examples.length : (features[feature]?.n_examples ?? 0);

/** Chips with counts; each searches for its token. `total`: how many examples there are, to say what is left out. */
export function PeakChips({ tokens, total = 0, limit = 8 }) {
  const some = mergedPeaks(tokens).slice(0, limit);
  const rest = total - some.reduce((sum, [, count]) => sum + count, 0);
  return html`<ul class="peak-chips" aria-label="Peak tokens">
    ${some.map(([text, count]) => html`<li key=${text}><${PeakChip} text=${text} count=${count} /></li>`)}
    ${rest > 0 && html`<li class="faint">and ${rest} other${rest === 1 ? "" : "s"}</li>`}
  </ul>`;
}

function PeakChip({ text, count }) {
  const content = html`<span class="chip-text">${peakName(text) || "(part of a character)"}</span>
    ${count > 0 && html`<span class="count">${count}</span>`}`;
  const query = text.trim() || peakName(text); // white space is searched for by its signs
  if (!query || query.length > LONGEST_QUERY) return html`<span class="chip">${content}</span>`;
  return html`<a class="chip" href=${to.search(query)} title="Search for this token">${content}</a>`;
}

/** The most frequent peak tokens of any neuron or feature, in a line; its neuron is fetched when the line is seen. */
export function LazyPeaks({ place, limit = 4 }) {
  const [ref, seen] = useInView();
  return html`<span class="lazy-peaks" ref=${ref}>
    ${seen ? html`<${Peaks} place=${place} limit=${limit} />` : html`<span class="faint">…</span>`}
  </span>`;
}

function Peaks({ place, limit }) {
  const { data, error } = useShards([`neurons/${place.layer}/${place.neuron}`]);
  if (error) return html`<span class="faint">${error.message}</span>`;
  if (!data) return html`<span class="faint">…</span>`;
  const problem = missingFeature(data[0], place);
  if (problem) return html`<span class="faint">${problem}</span>`;
  return html`<span class="peak-line">
    ${peakTokens(data[0], place)
      .slice(0, limit)
      .map(([text]) => html`<bdi key=${text}>${peakName(text)}</bdi> `)}
    <span class="faint">${counted(exampleCount(data[0], place), "example")}</span>
  </span>`;
}
