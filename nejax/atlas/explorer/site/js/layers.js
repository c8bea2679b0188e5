// All neurons by layer, and beside them (below, on a narrow screen) how the measure is distributed in each layer.

import { useMemo } from "../vendor/hooks.js";
import { useWidth } from "./chart.js";
import { Distribution } from "./distribution.js";
import { html } from "./html.js";
import { Overview } from "./overview.js";
import { layOut } from "./overview_layout.js";
import { withinLayers } from "./ranking.js";
import { hasSides } from "./sides.js";

const WIDE = 760; // px from which both stand side by side
const LABELS = 66;
const BETWEEN = 28;
const STACKED_ROW = 30;

/** Both views. `byValue`: a layer's cells are ordered by the measure. The rest: see `Overview` and `Distribution`. */
export function Layers({ atlas, values, column, range, mask, byValue, filter, onFilter }) {
  const [ref, width] = useWidth(1100);
  const isWide = width >= WIDE;
  const least = Math.min(Math.max(Math.round(width * 0.32), 260), 400); // for the histograms
  const available = isWide ? width - LABELS - BETWEEN - least : width;
  const layout = useMemo(() => layOut(atlas, available, !isWide), [atlas, available, isWide]);
  const aside = isWide ? Math.min(width - LABELS - BETWEEN - layout.width, 560) : width;
  const order = useMemo(() => withinLayers(byValue ? values : null, atlas), [byValue, byValue && values, atlas]);
  const rows = layout.tops.map((top, layer) =>
    isWide ? { top, height: layout.stripHeight } : { top: 4 + layer * STACKED_ROW, height: STACKED_ROW - 6 },
  );
  const labelStyle = (top) => (isWide ? { top: `${top}px` } : { top: `${top - 19}px` });
  return html`<div ref=${ref} class=${`layers${isWide ? " wide" : ""}`}>
    <section aria-label="All neurons">
      <h2>Every neuron${hasSides() && html` <span class="faint">two cells each: its sides</span>`}</h2>
      <div class="strips" style=${{ paddingLeft: `${isWide ? LABELS : 0}px` }}>
        ${layout.tops.map(
          (top, layer) => html`<span key=${layer} class="strip-label" style=${labelStyle(top)}>Layer ${layer}</span>`,
        )}
        <${Overview} ...${{ layout, order, values, column, range, mask }} />
      </div>
    </section>
    <section aria-label="Distribution by layer">
      <h2>Distribution <span class="faint">by layer; drag to filter</span><span class="median-title">median</span></h2>
      <${Distribution}
        ...${{ atlas, values, column, range, rows, mask, filter, onFilter, width: aside, labels: isWide ? 0 : 16 }}
      />
    </section>
  </div>`;
}
