// Which sides of the neurons a table shows: a filter like others.

import { formatWhere, withRange } from "./filters.js";
import { html } from "./html.js";
import { setQuery } from "./route.js";

const SIDES = [
  ["both", "Both sides", null],
  ["+", "Positive sides", 1],
  ["−", "Negative sides", -1],
];

export function SideChoice({ ranges }) {
  const now = ranges.find(({ name }) => name === "side") ?? { low: null, high: null };
  const choose = (side) => setQuery({ where: formatWhere(withRange(ranges, "side", side, side)), top: null });
  return html`<span class="segments" role="group" aria-label="Sides of the neurons">
    ${SIDES.map(
      ([sign, title, side]) =>
        html`<button key=${sign} type="button" title=${title} aria-label=${title}
          aria-pressed=${now.low === side && now.high === side} onClick=${() => choose(side)}>${sign}</button>`,
    )}
  </span>`;
}
