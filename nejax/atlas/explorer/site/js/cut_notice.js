// Says when the features shown are not the atlas's.

import { counted, decimal } from "./format.js";
import { html } from "./html.js";

/** Where the cut is, how many features that makes, and the way back; in the same place, that all is the atlas's. */
export function CutNotice({ neuron, clustering, cut, method, onReset }) {
  const own = neuron.features.length;
  if (cut === null) {
    const byMethod = `Features by ${method.name}, as in the atlas`;
    const found = method.isCut ? `Cut at ${decimal(neuron.height)}, as the atlas is` : byMethod;
    return html`<p class="cut-hint soft">${found}. Drag the line in the dendrogram to cut elsewhere.</p>`;
  }
  const n = clustering.features.length;
  const instead = method.isCut ? decimal(neuron.height) : method.name;
  return html`<p class="cut-notice" role="status">
    <span>
      Cut at <strong>${decimal(cut)}</strong> instead of ${instead}: <strong>${counted(n, "feature")}</strong>
      ${n === own ? "" : ` instead of ${own}`}. Feature pages show the atlas’s.
    </span>
    <button type="button" id="reset-cut" onClick=${onReset}>Back to the atlas’s</button>
  </p>`;
}
