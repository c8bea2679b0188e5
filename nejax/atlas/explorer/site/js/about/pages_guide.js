// How to read each page, and the keys.

import { html } from "../html.js";
import { KEYS } from "../keys.js";
import { to } from "../route.js";
import { hasSides } from "../sides.js";

const pages = () => [
  [
    "Model",
    to.model(),
    `Every ${hasSides() ? "side of a neuron" : "neuron"} as one cell, coloured by a measure. ` +
      "Brush a range to find its neurons.",
  ],
  ["Neurons", to.neurons(), "The same neurons as a table that sorts and filters; it can be taken along as CSV."],
  ["Neuron", null, "Its features, the map of its embeddings, the dendrogram. Drag the cut to split or join."],
  ["Feature", null, "Its examples as text, shaded by activation; the outlined token is the peak."],
  ["Compare", to.compare(), "Two features or neurons side by side."],
  ["Search", to.search(""), "The features that peak at a token, and the texts that hold a phrase."],
  ["Sequence", to.sequence(0), "A whole text, and at each token the features that have an example peaking there."],
  ["Starred", to.starred(), "What you starred, with notes: kept in this browser, or in a file to share."],
];

export function PageGuide() {
  return html`
    <dl>
      ${pages().map(
        ([name, address, what]) =>
          html`<dt>${address ? html`<a href=${address}>${name}</a>` : name}</dt>
            <dd>${what}</dd>`,
      )}
    </dl>
    <p>The address holds all that you see: reload it, go back, or send it to someone with the same atlas.</p>
    <h3 id="keys">Keys</h3>
    <dl>${KEYS.map(([key, what]) => html`<dt><kbd>${key}</kbd></dt><dd>${what}</dd>`)}</dl>
  `;
}
