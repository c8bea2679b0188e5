// Colours that colour-blind people can tell apart, in the light and in the dark.

import { html } from "./html.js";
import { decimal } from "./format.js";

const N_FEATURE_COLOURS = 6;

/** The CSS colour of a feature of a neuron: Okabe and Ito's palette for the six largest, grey for the rest. */
export const featureColour = (feature) =>
  feature >= 0 && feature < N_FEATURE_COLOURS ? `var(--feature-${feature})` : "var(--feature-other)";

// Cividis (Nunez, Anderton & Renslow 2018), every 32nd of its 256 colours: even in lightness, for all kinds of sight.
const CIVIDIS = [
  [0, 34, 78], [26, 56, 111], [67, 78, 108], [97, 101, 111], [125, 124, 120],
  [155, 149, 118], [187, 175, 105], [220, 202, 80], [254, 232, 56],
];

/** A colour [r, g, b] for a share from 0 to 1. */
export function cividis(share) {
  const at = Math.min(Math.max(share, 0), 1) * (CIVIDIS.length - 1);
  const low = Math.min(Math.floor(at), CIVIDIS.length - 2);
  return CIVIDIS[low].map((value, i) => Math.round(value + (at - low) * (CIVIDIS[low + 1][i] - value)));
}

/** A bar from the lowest to the highest colour of cividis, with the values that stand there. */
export function ScaleLegend({ low, high, title, format = decimal, missing = false }) {
  return html`<figure class="legend">
    <figcaption>${title}</figcaption>
    <span>${format(low)}</span>
    <span
      class="legend-bar cividis"
      role="img"
      aria-label=${`from dark blue, ${format(low)}, to yellow, ${format(high)}`}
    />
    <span>${format(high)}</span>
    ${missing && html`<span class="legend-swatch missing" /><span>no value</span>`}
  </figure>`;
}
