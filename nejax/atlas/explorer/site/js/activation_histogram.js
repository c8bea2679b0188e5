// How often the neuron has which activation, and where in that its examples come from.

import { useMemo } from "../vendor/hooks.js";
import { BottomAxis, linear, useWidth } from "./chart.js";
import { featureColour } from "./colours.js";
import { counted, decimal } from "./format.js";
import { html } from "./html.js";
import { activationName } from "./sides.js";

const MARGIN = { left: 40, right: 14, top: 22, bottom: 36 };
const HEIGHT = 66;
const RUG = 12; // pixels under the bars, for the examples' own activations
const FLOOR = 0.6; // a count of 1 stands a little above the base line; 0 is no bar

export function ActivationHistogram({ neuron, clustering, highlight, selected }) {
  const [ref, width] = useWidth(400);
  const { histogram, sampled, examples } = neuron;
  const { low, high, counts, n_tokens: nTokens } = histogram;
  const most = Math.max(...counts, 1);
  const base = MARGIN.top + HEIGHT;
  const isFlat = low === null || high === null || !(high > low);
  const x = linear([low ?? 0, isFlat ? (low ?? 0) + 1 : high], [MARGIN.left, width - MARGIN.right]);
  const y = linear([Math.log10(FLOOR), Math.log10(most)], [base, MARGIN.top]);
  const step = (width - MARGIN.left - MARGIN.right) / counts.length;
  const powers = powersUpTo(most);
  const bars = useMemo(
    () =>
      counts.map((count, bin) =>
        count === 0 ? null : html`<rect key=${bin} class="bin" x=${x(low) + bin * step}
          width=${Math.max(step - 0.75, 0.5)}
          y=${y(Math.log10(count))} height=${base - y(Math.log10(count))} />`,
      ),
    [neuron, width],
  );
  if (isFlat) {
    return html`<section class="chart" id="histogram" aria-labelledby="histogram-title">
      <h2 id="histogram-title">Activation</h2>
      <div ref=${ref} class="chart-frame"></div>
      <p class="soft">
        All ${counted(nTokens, "sampled token")} have the same activation${low === null ? "" : `, ${decimal(low)}`}.
      </p>
    </section>`;
  }
  return html`<section class="chart" id="histogram" aria-labelledby="histogram-title">
    <div class="section-head">
      <h2 id="histogram-title">Activation</h2>
      <span class="soft chart-note">at ${counted(nTokens, "sampled token")}</span>
    </div>
    <div ref=${ref} class="chart-frame">
      <svg width=${width} height=${base + RUG + MARGIN.bottom} role="img" aria-label=${said(neuron)}>
        ${sampled && html`<${Band} sampled=${sampled} x=${x} base=${base} width=${width} />`}
        <g class="counts" aria-hidden="true">
          ${powers.map(
            (count) => html`<g key=${count}>
              <line x1=${MARGIN.left} x2=${width - MARGIN.right} y1=${y(Math.log10(count))}
                y2=${y(Math.log10(count))} />
              <text x=${MARGIN.left - 5} y=${y(Math.log10(count)) + 4} text-anchor="end">${short(count)}</text>
            </g>`,
          )}
        </g>
        ${bars}
        <g class="rug" aria-hidden="true">
          ${examples.map(
            ({ activation }, i) => html`<line key=${i} data-example=${i} x1=${x(activation)} x2=${x(activation)}
              y1=${base + 2} y2=${base + RUG - 2}
              style=${{ stroke: featureColour(clustering.labels[i]) }} />`,
          )}
          ${[selected, highlight.example].filter((i) => i !== null && i < examples.length).map(
            (i, k) => html`<line
              key=${`mark-${k}`} class="lit" x1=${x(examples[i].activation)} x2=${x(examples[i].activation)}
              y1=${base - 4} y2=${base + RUG} />`,
          )}
        </g>
        <${BottomAxis} scale=${x} low=${low} high=${high} y=${base + RUG}
          title=${`${activationName(neuron.neuron)} (bars: tokens, log scale; no bar: none)`} />
      </svg>
    </div>
  </section>`;
}

/** The range of activations that the examples were taken from. */
function Band({ sampled: [lowest, highest], x, base, width }) {
  const [from, until] = [x(lowest), Math.max(x(highest), x(lowest) + 2)];
  const isRight = (from + until) / 2 > width / 2;
  return html`<g class="sampled" id="sampled-range" aria-hidden="true">
    <rect x=${from} width=${until - from} y=${MARGIN.top} height=${base - MARGIN.top} />
    <text x=${isRight ? until : from} y=${MARGIN.top - 7} text-anchor=${isRight ? "end" : "start"}>
      examples: ${decimal(lowest)} to ${decimal(highest)}
    </text>
  </g>`;
}

/** 1, 10, 100, ... or, of many, every second one. */
function powersUpTo(most) {
  const all = Array.from({ length: Math.floor(Math.log10(most)) + 1 }, (_, power) => 10 ** power);
  return all.length > 4 ? all.filter((_, power) => power % 2 === 0) : all;
}

const short = (count) => (count >= 1e6 ? `${count / 1e6}M` : count >= 1e3 ? `${count / 1e3}k` : String(count));

function said({ histogram: { low, high, counts, n_tokens: nTokens }, sampled }) {
  const bin = counts.indexOf(Math.max(...counts));
  const width = (high - low) / counts.length;
  const usual = `most often ${decimal(low + bin * width)} to ${decimal(low + (bin + 1) * width)}`;
  const examples = sampled ? `; its examples are from ${decimal(sampled[0])} to ${decimal(sampled[1])}` : "";
  const range = `from ${decimal(low)} to ${decimal(high)}`;
  return `Histogram of its activation at ${counted(nTokens, "sampled token")}: ${range}, ${usual}${examples}.`;
}
