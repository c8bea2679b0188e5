// The features of a neuron in a line, to go from one to the next.

import { useLayoutEffect, useRef } from "../vendor/hooks.js";
import { featureColour } from "./colours.js";
import { counted } from "./format.js";
import { html } from "./html.js";
import { to } from "./route.js";
import { mergedPeaks, peakName } from "./tokens.js";

/** Links to the features: number, colour, most frequent peak token, examples. `query` goes along. */
export function FeatureStrip({ neuron, feature, query }) {
  const strip = useRef(null);
  useLayoutEffect(() => {
    const current = strip.current.querySelector("[aria-current]");
    if (current) strip.current.scrollLeft = current.offsetLeft - (strip.current.clientWidth - current.clientWidth) / 2;
  }, [feature, neuron]);
  return html`<nav class="feature-strip table-scroll" aria-label="Features of this neuron" ref=${strip}>
    ${neuron.features.map(({ n_examples, peak_tokens }, i) => {
      const name = peakName(mergedPeaks(peak_tokens)[0]?.[0] ?? "");
      return html`<a
        key=${i}
        href=${to.feature(neuron.layer, neuron.neuron, i, query)}
        aria-current=${i === feature ? "page" : undefined}
        title=${`Feature ${i}: ${counted(n_examples, "example")}, most often at ${name}`}
        style=${{ "--colour": featureColour(i), "--share": `${(100 * n_examples) / neuron.examples.length}%` }}
      >
        <span class="strip-number">${i}</span>
        <bdi class="strip-peak">${name}</bdi>
        <span class="strip-count">${n_examples}</span>
      </a>`;
    })}
  </nav>`;
}
