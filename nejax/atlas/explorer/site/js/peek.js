// A line that says which example is pointed at, and shows it.

import { featureColour } from "./colours.js";
import { ContextLine } from "./context_line.js";
import { decimal } from "./format.js";
import { html } from "./html.js";

/** The example pointed at, else the selected one, else what to do. */
export function Peek({ neuron, clustering, highlight, selected, scale }) {
  const i = highlight.example ?? selected;
  const example = neuron.examples[i];
  if (!example) return html`<div class="peek"><p
    class="faint">Point at an example to read it, click to keep it.</p></div>`;
  const feature = clustering.labels[i];
  return html`<div class="peek">
    <p class="soft">
      <span class="swatch"
        style=${{ "--colour": featureColour(feature) }} />Example ${i}, feature ${feature}, activation${" "}
      ${decimal(example.activation)}
    </p>
    <${ContextLine} neuron=${neuron} example=${example} scale=${scale} />
  </div>`;
}
