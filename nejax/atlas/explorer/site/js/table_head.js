// The head of the table of neurons: names that sort, and under them fields that filter.

import { useAtlas } from "./context.js";
import { columnNamed, spread } from "./columns.js";
import { EndField, plain } from "./filter_parts.js";
import { formatWhere, withRange } from "./filters.js";
import { html } from "./html.js";
import { setQuery } from "./route.js";

export function TableHead({ shownColumns, columns, sort, ranges }) {
  const atlas = useAtlas();
  const all = [columnNamed(atlas, "layer"), columnNamed(atlas, "neuron"), ...shownColumns];
  return html`<thead>
    <tr aria-rowindex="1">
      ${all.map((column) => html`<${Title} key=${column.name} ...${{ column, sort }} />`)}
    </tr>
    <tr aria-rowindex="2" class="filters">
      ${all.map(
        (column) => html`<${Ends} key=${column.name} ...${{ column, ranges, values: columns[column.name] }} />`,
      )}
    </tr>
  </thead>`;
}

const isPlace = ({ name }) => name === "layer" || name === "neuron";
const placeClass = (column) => (isPlace(column) ? `place ${column.name}` : "");

function Title({ column, sort }) {
  const isSorted = sort.name === column.name;
  const descending = isSorted ? !sort.descending : !isPlace(column); // measures: the highest first
  const direction = sort.descending ? "descending" : "ascending";
  return html`<th
    scope="col"
    class=${placeClass(column)}
    data-column=${column.name}
    aria-sort=${isSorted ? direction : "none"}
    title=${column.help}
  >
    <button type="button" onClick=${() => setQuery({ sort: `${descending ? "-" : ""}${column.name}`, top: null })}>
      ${column.title}<span class="sort-sign" aria-hidden="true">${isSorted ? (sort.descending ? "↓" : "↑") : ""}</span>
    </button>
  </th>`;
}

/** The fields for a column's least and most; where they are empty, what the column has. */
function Ends({ column, ranges, values }) {
  const { low = null, high = null } = ranges.find(({ name }) => name === column.name) ?? {};
  const change = (...ends) => setQuery({ where: formatWhere(withRange(ranges, column.name, ...ends)), top: null });
  const { min, max } = values ? spread(values) : { min: NaN, max: NaN };
  const field = (word, value, usual, onChange) =>
    html`<${EndField}
      label=${`${column.title}: ${word}`}
      placeholder=${Number.isNaN(usual) ? "" : plain(usual, column)}
      ...${{ column, value, onChange }}
    />`;
  return html`<td class=${`${placeClass(column)}${low !== null || high !== null ? " filtered" : ""}`}>
    ${field("at least", low, min, (value) => change(value, high))}<span class="faint">–</span
    >${field("at most", high, max, (value) => change(low, value))}
  </td>`;
}
