// A range that is dragged along an axis: draw a new one, move it or one of its edges. A click beside it clears it.

import { useRef } from "../vendor/hooks.js";
import { html } from "./html.js";

const EDGE = 7; // px around an edge that take hold of it
const SLACK = 3; // px that a click may move

/**
 * The range's rectangle and the surface that takes the pointer.
 *
 * filter: {low, high}, an end null where it is open (dragged to the axis's end), or undefined.
 * onFilter(low, high, {replace}): replace is false for the first change of a drag.
 */
export function Brush({ scale, axis, column, filter, onFilter, top, bottom }) {
  const drag = useRef(null);
  const [left, right] = [scale(axis.low), scale(axis.high)];
  const clamp = (x) => Math.min(Math.max(x, left), right);
  const from = clamp(filter?.low == null ? left : scale(filter.low));
  const upTo = clamp(filter?.high == null ? right : scale(filter.high));
  const tell = (a, b) => {
    const [low, high] = valuesOf(clamp(Math.min(a, b)), clamp(Math.max(a, b)), scale, axis, column);
    onFilter(low, high, { replace: drag.current.moved });
    drag.current.moved = true;
  };
  const start = (event) => {
    if (event.button !== 0) return;
    const x = placeOf(event);
    event.currentTarget.setPointerCapture(event.pointerId);
    drag.current = { kind: kindOf(x, from, upTo, filter), x, from, upTo, moved: false };
  };
  const move = (event) => {
    const held = drag.current;
    if (!held) return;
    const x = placeOf(event);
    if (!held.moved && Math.abs(x - held.x) < SLACK) return;
    const by = Math.min(Math.max(x - held.x, left - held.from), right - held.upTo);
    if (held.kind === "low") tell(x, held.upTo);
    else if (held.kind === "high") tell(held.from, x);
    else if (held.kind === "move") tell(held.from + by, held.upTo + by);
    else tell(held.x, x);
  };
  const end = () => {
    if (drag.current && !drag.current.moved && drag.current.kind === "new" && filter) onFilter(null, null, {});
    drag.current = null;
  };
  return html`<g>
    ${
      filter &&
      html`<rect class="brush-range" x=${from} width=${Math.max(upTo - from, 1)} y=${top} height=${bottom - top} />
        ${filter.low !== null && html`<line class="brush-edge" x1=${from} x2=${from} y1=${top} y2=${bottom} />`}
        ${filter.high !== null && html`<line class="brush-edge" x1=${upTo} x2=${upTo} y1=${top} y2=${bottom} />`}`
    }
    <rect
      class="brush-surface"
      data-testid="brush"
      x=${left - EDGE}
      width=${right - left + 2 * EDGE}
      y=${top}
      height=${bottom - top}
      onPointerDown=${start}
      onPointerMove=${move}
      onPointerUp=${end}
      onPointerCancel=${end}
    />
  </g>`;
}

const placeOf = (event) => event.clientX - event.currentTarget.ownerSVGElement.getBoundingClientRect().left;

function kindOf(x, from, upTo, filter) {
  if (!filter) return "new";
  if (filter.low !== null && Math.abs(x - from) <= EDGE) return "low";
  if (filter.high !== null && Math.abs(x - upTo) <= EDGE) return "high";
  return x > from && x < upTo ? "move" : "new";
}

/** The values at two places. An end of the axis is open, since values beyond it are counted there. */
function valuesOf(a, b, scale, axis, column) {
  const value = (x, whole) => (column.integer ? whole(scale.invert(x)) : Number(scale.invert(x).toFixed(axis.digits)));
  const low = a <= scale(axis.low) + 0.5 ? null : value(a, Math.ceil);
  const high = b >= scale(axis.high) - 0.5 ? null : value(b, Math.floor);
  return [low, high];
}
