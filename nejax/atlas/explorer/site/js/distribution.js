// How a measure is distributed in each layer: a histogram a layer over one axis, on which a range can be dragged.

import { useMemo } from "../vendor/hooks.js";
import { Brush } from "./brush.js";
import { BottomAxis, linear } from "./chart.js";
import { cividis } from "./colours.js";
import { medians } from "./columns.js";
import { shown } from "./format.js";
import { axisOf, countBins, heightsPath } from "./histogram_bins.js";
import { html } from "./html.js";

const MEDIAN = 48; // px at the right for the medians
const FOOT = 42; // px below for the axis
const STOPS = Array.from({ length: 9 }, (_, i) => i / 8);

/**
 * The histograms.
 *
 * rows: [{top, height}] in px, where each layer's stands. labels: px at the left for the layers' names, 0 for none.
 * range {low, high}: what the colours span. mask: 1 for the neurons inside all filters, or null.
 * filter {low, high}: the range that is dragged, open ends null. onFilter: as for `Brush`.
 */
export function Distribution({ atlas, values, column, range, rows, width, labels, mask, filter, onFilter }) {
  const axis = useMemo(() => axisOf(range, column), [range, column]);
  const all = useMemo(() => countBins(values, null, axis, atlas), [values, axis, atlas]);
  const kept = useMemo(() => (mask ? countBins(values, mask, axis, atlas) : all), [values, mask, axis, atlas, all]);
  const middles = useMemo(() => medians(values, atlas), [values, atlas]);
  const most = useMemo(() => all.reduce((high, n) => Math.max(high, n), 1), [all]);
  const scale = linear([axis.low, axis.high], [labels + 6, width - MEDIAN - 6]);
  const coloured = range.low < range.high ? range : axis; // a single value has the middle colour
  const last = rows[rows.length - 1];
  const foot = last.top + last.height;
  const format = (value) => shown(value, column);
  const said = middles.map((one, layer) => `layer ${layer} ${format(one)}`).join(", ");
  return html`<svg
    class="distribution"
    width=${width}
    height=${foot + FOOT}
    role="group"
    aria-label=${`Histograms of ${column.title} by layer. Medians: ${said}.`}
  >
    <defs>
      <linearGradient
        id="cividis"
        gradientUnits="userSpaceOnUse"
        x1=${scale(coloured.low)}
        x2=${scale(coloured.high)}
        y1="0"
        y2="0"
      >
        ${STOPS.map((at) => html`<stop offset=${at} stop-color=${`rgb(${cividis(at).join()})`} />`)}
      </linearGradient>
    </defs>
    ${rows.map((row, layer) => {
      const base = row.top + row.height;
      const path = (counts) => heightsPath(counts, layer, axis, scale, base, (row.height - 2) / most);
      const middle = scale(Math.min(Math.max(middles[layer], axis.low), axis.high));
      return html`<g key=${layer} data-layer=${layer} aria-hidden="true">
        <path class="ridge-all" d=${path(all)} />
        <path class="ridge-kept" d=${path(kept)} />
        <line class="ridge-base" x1=${scale(axis.low)} x2=${scale(axis.high)} y1=${base} y2=${base} />
        ${labels > 0 && html`<text x="0" y=${base - 2}>${layer}</text>`}
        ${middle >= 0 &&
        html`<line class="median" x1=${middle} x2=${middle} y1=${base + 1} y2=${base - row.height * 0.55} />`}
        <text class="median-value" x=${width} y=${base - 2}>${format(middles[layer])}</text>
      </g>`;
    })}
    <rect
      class="colour-axis"
      x=${scale(axis.low)}
      width=${scale(axis.high) - scale(axis.low)}
      y=${foot + 6}
      height="6"
    />
    <${BottomAxis}
      scale=${scale}
      low=${axis.low}
      high=${axis.high}
      y=${foot + 14}
      format=${format}
      count=${axis.nTicks}
    />
    <${Brush} ...${{ scale, axis, column, filter, onFilter, top: rows[0].top - 4, bottom: foot + 14 }} />
  </svg>`;
}
