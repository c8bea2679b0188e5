// All neurons, layer by layer, a cell each: point at one to read its value, click or press Enter to open it.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/hooks.js";
import { neuronName, shown } from "./format.js";
import { html } from "./html.js";
import { cornerOf, moved, placeAt } from "./overview_layout.js";
import { paint } from "./overview_paint.js";
import { placesIn } from "./ranking.js";
import { go, to } from "./route.js";
import { unitNoun } from "./sides.js";
import { useThemeColours } from "./theme.js";

/**
 * The cells on a canvas.
 *
 * layout: of `layOut`. order: the neuron of each place. values, column, range {low, high}: what colours them.
 * mask: 1 for the neurons that stand out, or null.
 */
export function Overview({ layout, order, values, column, range, mask }) {
  const canvas = useRef(null);
  const colours = useThemeColours(["paper", "ink", "line"]);
  const [cursor, setCursor] = useState(null); // {id, by: "mouse", "touch" or "keys"}
  useLayoutEffect(
    () => paint(canvas.current, { layout, order, values, range, mask, colours, ratio: devicePixelRatio || 1 }),
    [layout, order, values, range.low, range.high, mask, colours],
  );
  const places = useMemo(() => placesIn(order), [order]);
  const address = (id) => to.neuron(Math.floor(id / layout.dMlp), id % layout.dMlp);
  const idAt = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const place = placeAt(layout, event.clientX - box.left, event.clientY - box.top);
    return place === null ? null : order[place];
  };
  const point = (event) => {
    const id = idAt(event);
    setCursor(id === null ? null : { id, by: event.pointerType === "touch" ? "touch" : "mouse" });
  };
  const click = (event) => {
    const id = idAt(event);
    if (id === null || (cursor?.by === "touch" && event.pointerType === "touch")) return; // a finger opens by the label
    if (event.ctrlKey || event.metaKey) open(address(id), "_blank");
    else go(address(id));
  };
  const press = (event) => {
    if (event.key === "Enter" && cursor) return go(address(cursor.id));
    if (event.key === "Escape") return setCursor(null);
    const place = cursor ? moved(layout, places[cursor.id], event.key) : 0;
    if (place === null || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!cursor && !event.key.startsWith("Arrow")) return;
    event.preventDefault();
    setCursor({ id: order[place], by: "keys" });
  };
  const what = `All ${order.length.toLocaleString("en-US")} ${unitNoun()}s by layer, coloured by ${column.title}.`;
  return html`<div class="overview" style=${{ width: `${layout.width}px`, height: `${layout.height}px` }}>
    <canvas
      ref=${canvas}
      tabindex="0"
      role="application"
      data-arrows
      aria-label=${`${what} Arrow keys move, Enter opens a ${unitNoun()}.`}
      style=${{ width: `${layout.width}px`, height: `${layout.height}px` }}
      onPointerMove=${point}
      onPointerDown=${point}
      onPointerLeave=${(event) => event.pointerType !== "touch" && setCursor(null)}
      onClick=${click}
      onKeyDown=${press}
    />
    ${cursor && html`<${Cursor} layout=${layout} place=${places[cursor.id]} />`}
    <${Readout} ...${{ layout, places, values, column, mask, cursor, address }} />
  </div>`;
}

function Cursor({ layout, place }) {
  const { x, y } = cornerOf(layout, place);
  const box = { left: x - 2, top: y - 2, width: layout.cellWidth + 3, height: layout.cellHeight + 3 };
  const style = Object.fromEntries(Object.entries(box).map(([name, value]) => [name, `${value}px`]));
  return html`<span class="overview-cursor" style=${style} />`;
}

/** What is under the cursor, beside it; a screen reader hears it. */
function Readout({ layout, places, values, column, mask, cursor, address }) {
  const element = useRef(null);
  const [size, setSize] = useState([0, 0]);
  useEffect(() => setSize([element.current.offsetWidth, element.current.offsetHeight]), [cursor?.id, column]);
  if (!cursor) return html`<p ref=${element} class="overview-readout" role="status" />`;
  const { x, y } = cornerOf(layout, places[cursor.id]);
  const left = Math.max(Math.min(x - size[0] / 2, layout.width - size[0]), 0);
  const top = y > size[1] + 12 ? y - size[1] - 8 : y + layout.cellHeight + 8;
  const name = neuronName(Math.floor(cursor.id / layout.dMlp), cursor.id % layout.dMlp);
  return html`<p
    ref=${element}
    class=${`overview-readout shown${cursor.by === "touch" ? " touch" : ""}`}
    role="status"
    style=${{ left: `${left}px`, top: `${top}px` }}
  >
    ${cursor.by === "touch" ? html`<a href=${address(cursor.id)}>${name}</a>` : html`<b>${name}</b>`}${" "}
    <span>${column.title} ${shown(values[cursor.id], column)}</span>
    ${mask && !mask[cursor.id] && html`<span class="faint"> filtered out</span>`}
  </p>`;
}
