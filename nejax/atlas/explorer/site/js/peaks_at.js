// The features that have an example peaking at one token of a sequence, by layer.

import { useState } from "../vendor/hooks.js";
import { counted, decimal, featureName } from "./format.js";
import { html } from "./html.js";
import { to } from "./route.js";
import { unitName } from "./sides.js";
import { peakName } from "./tokens.js";

const FIRST = 8; // of a layer
const BUSIEST = 8; // tokens to begin with

/**
 * pieces: of the sequence. examples: [{position, layer, neuron, feature, activation}]. counts: of them at each
 * position. at: the position that was chosen, or null. address: position -> the address that chooses it.
 */
export function PeaksAt({ pieces, examples, counts, at, address }) {
  if (at === null) return html`<${Busiest} pieces=${pieces} counts=${counts} address=${address} />`;
  const here = examples.filter(({ position }) => position === at);
  const layers = [...new Set(here.map(({ layer }) => layer))].sort((a, b) => a - b);
  return html`<section class="peaks-at" aria-labelledby="at-title">
    <h2 id="at-title">At <${Name} piece=${pieces[at]} /> <span class="faint">token ${pieces[at].id}, position ${at}</span></h2>
    <p class="soft" role="status">
      ${here.length ? `${counted(here.length, "example")} here, the strongest first.` : "No example peaks here."}
    </p>
    ${layers.map((layer) => {
      const own = here.filter((example) => example.layer === layer).sort((a, b) => b.activation - a.activation);
      return html`<${Layer} key=${`${at} ${layer}`} layer=${layer} examples=${own} />`;
    })}
  </section>`;
}

const Name = ({ piece: { text, position } }) =>
  position === 0
    ? "the start"
    : html`<code class="token-name">${text ? peakName(text) : "(part of a character)"}</code>`;

function Layer({ layer, examples }) {
  const [all, setAll] = useState(false);
  const rest = examples.length - FIRST;
  return html`<h3>Layer ${layer}</h3>
    <ol class="peak-rows">
      ${examples.slice(0, all ? undefined : FIRST).map(
        ({ neuron, feature, activation }) => html`<li>
          <a href=${to.feature(layer, neuron, feature)} aria-label=${featureName(layer, neuron, feature)}
            >neuron ${unitName(neuron)}, feature ${feature}</a>
          <span class="number soft">${decimal(activation)}</span>
        </li>`,
      )}
    </ol>
    ${rest > 0 &&
    html`<button type="button" aria-expanded=${all} onClick=${() => setAll(!all)}>
      ${all ? "Show fewer" : `${rest} more`}
    </button>`}`;
}

/** Before a token is chosen: where the most examples peak. */
function Busiest({ pieces, counts, address }) {
  const busiest = pieces
    .map(({ position }) => position)
    .filter((position) => counts[position])
    .sort((a, b) => counts[b] - counts[a] || a - b)
    .slice(0, BUSIEST);
  return html`<section class="peaks-at" aria-labelledby="busiest-title">
    <h2 id="busiest-title">Where examples peak</h2>
    <p class="soft">
      ${busiest.length
        ? "Choose a token to see the features that peak there. The most do at:"
        : "No example peaks in this text."}
    </p>
    <ol class="peak-rows">
      ${busiest.map(
        (position) => html`<li>
          <a href=${address(position)}
            ><${Name} piece=${pieces[position]} /> <span class="faint">position ${position}</span></a>
          <span class="number soft">${counted(counts[position], "example")}</span>
        </li>`,
      )}
    </ol>
  </section>`;
}
