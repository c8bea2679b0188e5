// Which token of a text is pointed at: by a tap or click, or by the arrow keys while the text has the focus.

import { useState } from "../vendor/hooks.js";
import { decimal } from "./format.js";
import { html } from "./html.js";

/** {selected: a position or undefined, piece, handlers of the element around the tokens}. It starts at `start`. */
export function useTokenCursor(pieces, start) {
  const [selected, setSelected] = useState(undefined);
  const at = pieces.findIndex(({ position }) => position === selected);
  const onClick = ({ target }) => {
    const position = target.closest(".token")?.dataset.position;
    if (position !== undefined) setSelected(Number(position) === selected ? undefined : Number(position));
  };
  const onKeyDown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") setSelected(undefined);
    if (!step || !pieces.length || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const from = at < 0 ? pieces.findIndex(({ position }) => position === start) - step : at;
    setSelected(pieces[Math.min(Math.max(from + step, 0), pieces.length - 1)].position);
  };
  const handlers = { onClick, onKeyDown, tabIndex: 0, role: "group", "data-arrows": "" };
  return { selected: at < 0 ? undefined : selected, piece: pieces[at], handlers };
}

/** What is known of the token that is pointed at, and `facts` of its example. */
export function Readout({ piece, peak, facts = "" }) {
  if (!piece) return html`<p class="readout" aria-live="polite" hidden />`;
  const { id, text, activation, importance, position } = piece;
  const distance = position - peak;
  const side = distance < 0 ? "before" : "after";
  return html`<p class="readout" aria-live="polite">
    <code><bdi>${JSON.stringify(text.slice(0, 60))}</bdi></code>
    <span>token ${id}</span>
    <span>position ${position}${distance ? ` (${Math.abs(distance)} ${side} the peak)` : " (the peak)"}</span>
    <span>activation ${activation === undefined ? "unknown" : decimal(activation)}</span>
    ${importance !== undefined && html`<span>importance ${decimal(importance)}</span>`}
    ${facts && html`<span>${facts}</span>`}
  </p>`;
}
