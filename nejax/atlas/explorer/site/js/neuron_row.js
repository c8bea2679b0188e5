// A row of the table of neurons: its place, and a cell for each measure with a quiet bar for the size.

import { spread } from "./columns.js";
import { neuronName, shown } from "./format.js";
import { html } from "./html.js";
import { to } from "./route.js";
import { unitName } from "./sides.js";

export function NeuronRow({ id, index, layer, neuron, shownColumns, columns, isCurrent }) {
  return html`<tr
    class=${isCurrent ? "current" : ""}
    aria-rowindex=${index + 3}
    aria-selected=${isCurrent}
    data-neuron=${`${layer}/${neuron}`}
  >
    <td class="place layer">${layer}</td>
    <th scope="row" class="place neuron" id=${`row-${id}`} aria-label=${neuronName(layer, neuron)}>
      <a href=${to.neuron(layer, neuron)} tabindex="-1">${unitName(neuron)}</a>
    </th>
    ${shownColumns.map((column) => {
      const values = columns[column.name];
      if (!values) return html`<td key=${column.name} class="faint">…</td>`;
      return html`<td key=${column.name} style=${bar(values[id], spread(values))}>${shown(values[id], column)}</td>`;
    })}
  </tr>`;
}

/** Where the cell's bar begins and ends, as shares of its width: from 0 to the value, within the usual values. */
function bar(value, { low, high }) {
  const [least, most] = [Math.min(low, 0), Math.max(high, 0)];
  if (Number.isNaN(value) || !(most > least)) return undefined;
  const share = (at) => Math.min(Math.max((at - least) / (most - least), 0), 1);
  const [from, upTo] = [share(Math.min(value, 0)), share(Math.max(value, 0))];
  return { "--from": from.toFixed(3), "--to": upTo.toFixed(3) };
}
