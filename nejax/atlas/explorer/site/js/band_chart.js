// How far apart what the neuron read is, by how strongly that excited it: a bar for each band of activation.

import { linear, tickText, ticks, useWidth } from "./chart.js";
import { counted, decimal } from "./format.js";
import { html } from "./html.js";

const MARGIN = { left: 40, right: 14, top: 20, bottom: 36 };
const HEIGHT = 72;
const LEAST_TOP = 0.1; // of the scale: tiny distances are not blown up
const GAP = 0.14; // of a band's width, left free on both sides

/** bands: of a neuron's shard. overall: the mean distance of all bands together, or null. */
export function BandChart({ bands, overall }) {
  const [ref, width] = useWidth(400);
  const { edges, n_tokens: counts, mean_distance: distances } = bands;
  const total = counts.reduce((sum, n) => sum + n, 0);
  const most = Math.max(...distances, overall ?? 0, LEAST_TOP);
  const base = MARGIN.top + HEIGHT;
  const [left, right] = [MARGIN.left, width - MARGIN.right];
  const y = linear([0, most], [base, MARGIN.top]);
  const step = (right - left) / distances.length;
  const name = (band) => `${tickText(percentOf(edges[band]))}–${tickText(percentOf(edges[band + 1]))}`;
  return html`<section class="chart" id="bands" aria-labelledby="bands-title">
    <div class="section-head">
      <h2 id="bands-title">Mean distance by activation</h2>
      <span class="soft chart-note">at ${counted(total, "token")}</span>
    </div>
    <div ref=${ref} class="chart-frame">
      <svg width=${width} height=${base + MARGIN.bottom} role="img" aria-label=${said(bands, name)}>
        <g class="counts" aria-hidden="true">
          ${ticks(0, most, 5).map(
            (value) => html`<g key=${value}>
              <line x1=${left} x2=${right} y1=${y(value)} y2=${y(value)} />
              <text x=${left - 5} y=${y(value) + 4} text-anchor="end">${tickText(value)}</text>
            </g>`,
          )}
        </g>
        ${distances.map((distance, band) => {
          const x = left + band * step;
          const middle = x + step / 2;
          return html`<g key=${band} class="band" data-band=${band} aria-hidden="true">
            <title>${title(bands, band, name(band))}</title>
            <rect class="band-area" x=${x} width=${step} y=${MARGIN.top} height=${HEIGHT} />
            ${distance !== null && html`<rect class="band-bar" x=${x + GAP * step} width=${(1 - 2 * GAP) * step} y=${y(distance)}
              height=${base - y(distance)} />`}
            <text class="band-name" x=${middle} y=${base + 15}>${name(band)}</text>
          </g>`;
        })}
        ${overall !== null && html`<line class="band-overall" aria-hidden="true" x1=${left} x2=${right}
          y1=${y(overall)} y2=${y(overall)} />`}
        ${distances.map(
          (distance, band) => html`<text key=${band} class="band-value" aria-hidden="true" x=${left + (band + 0.5) * step}
            y=${y(distance ?? 0) - 4}>${distance === null ? "–" : decimal(distance)}</text>`,
        )}
        <g class="axis" aria-hidden="true">
          <line x1=${left} x2=${right} y1=${base} y2=${base} />
          <text class="axis-title" x=${(left + right) / 2} y=${base + 31}>activation, % of its maximum</text>
        </g>
      </svg>
    </div>
    ${overall !== null && html`<p class="soft band-key">
      <span class="band-dash" /> all tokens at which it fires: ${decimal(overall)}
    </p>`}
    <details class="band-table">
      <summary>As a table</summary>
      <table>
        <thead>
          <tr>
            <th scope="col">Activation, % of maximum</th>
            <th scope="col" class="number">Tokens</th>
            <th scope="col" class="number">Mean distance</th>
          </tr>
        </thead>
        <tbody>
          ${distances.map(
            (distance, band) => html`<tr key=${band}>
              <th scope="row">${name(band)}</th>
              <td class="number">${counts[band].toLocaleString("en-US")}</td>
              <td class="number">${distance === null ? "–" : decimal(distance)}</td>
            </tr>`,
          )}
        </tbody>
      </table>
    </details>
  </section>`;
}

const percentOf = (part) => Number((100 * part).toPrecision(6));

function title({ n_tokens: counts, mean_distance: distances }, band, name) {
  const distance = distances[band] === null ? "fewer than two: no distance" : `mean distance ${decimal(distances[band])}`;
  return `${name}% of its maximum: ${counted(counts[band], "token")}, ${distance}`;
}

function said(bands, name) {
  const all = bands.mean_distance.map((_, band) => title(bands, band, name(band)));
  return `Mean distance of its embeddings by activation. ${all.join("; ")}.`;
}
