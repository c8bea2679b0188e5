// An example in one line, its peak where the peaks of the lines above and below are.

import { useMemo } from "../vendor/hooks.js";
import { decimal } from "./format.js";
import { html } from "./html.js";
import { Tokens, windowPieces } from "./tokens.js";

const BEFORE = 14;
const AFTER = 10;

/** The text before the peak, the peak, and what follows. */
export const ContextLine = ({ neuron, example, scale }) =>
  useMemo(() => drawn(neuron, example, scale), [neuron, example, scale]);

function drawn(neuron, example, scale) {
  const pieces = windowPieces(neuron, example, { before: BEFORE, after: AFTER });
  if (!pieces.length) {
    return html`<span
      class="context-line faint">its text is not in this export; activation ${decimal(example.activation)}</span>`;
  }
  const part = (some, peak) => html`<${Tokens} pieces=${some} scale=${scale} peak=${peak} dir="ltr" />`;
  return html`<span class="context-line">
    <span class="context-before">${part(pieces.filter(({ fromPeak }) => fromPeak < 0), -1)}</span>
    <span class="context-after">${part(pieces.filter(({ fromPeak }) => fromPeak >= 0), 0)}</span>
  </span>`;
}
