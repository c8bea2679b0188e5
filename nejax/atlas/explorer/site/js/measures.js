// A neuron's measures, and what those that depend on it are at another cut.

import { shown } from "./format.js";
import { html } from "./html.js";

/** A table. While the cut is not the atlas's, a column has what it makes of the measures that the tree alone tells. */
export function Measures({ atlas, measures, clustering, cut }) {
  const here = {
    n_features: clustering.features.length,
    height: cut,
    intra_cluster_distance: clustering.intra,
    inter_cluster_distance: clustering.inter,
  };
  return html`<section class="measures" aria-labelledby="measures-title">
    <h2 id="measures-title">Measures</h2>
    <div class="table-scroll" role="region" tabindex="0" aria-label="Table of measures">
      <table>
        <thead>
          <tr>
            <th scope="col">Measure</th>
            <th scope="col" class="number">Value</th>
            ${cut !== null && html`<th scope="col" class="number">At this cut</th>`}
            <th scope="col">What it says</th>
          </tr>
        </thead>
        <tbody>
          ${atlas.columns.map(
            (column) => html`<tr key=${column.name} data-measure=${column.name}>
              <th scope="row">${column.title}</th>
              <td class="number">${shown(measures[column.name], column)}</td>
              ${cut !== null && html`<td class="number">${atCut(column, here)}</td>`}
              <td class="soft">${column.help}</td>
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
  </section>`;
}

/** The same, another value, or (the silhouette needs more than the tree) a dash. */
function atCut(column, here) {
  if (column.name in here) return shown(here[column.name], column);
  return column.name === "silhouette" ? html`<span title="needs the distances of all pairs">–</span>` : "";
}
