// The line that cuts the dendrogram: dragged, or moved by keys.

import { useRef } from "../vendor/hooks.js";
import { counted, decimal } from "./format.js";
import { html } from "./html.js";

const STEP = 0.01;
const PAGE = 0.1;
const SNAP = 3; // pixels within which the line jumps to the atlas's cut
const DIGITS = 3;

/**
 * x: scale from heights to pixels, of [0, top]. at: where the line is. latest(): where it was put last.
 *
 * atlasCut: the atlas's height, null if it has none; there onCut(null) is called. isApplied: whether the features shown
 * are those of this cut.
 */
export function CutLine({ x, at, top, y1, y2, atlasCut, isApplied, n, onCut, latest }) {
  const grip = useRef(null); // how far the pointer is from the line, while it is held
  const put = (height) => {
    const within = Number(Math.min(Math.max(height, 0), top).toFixed(DIGITS));
    onCut(within === atlasCut ? null : within);
  };
  const down = (event) => {
    if (event.button > 0) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    grip.current = event.clientX - x(at);
  };
  const move = (event) => {
    if (grip.current === null) return;
    const place = event.clientX - grip.current;
    if (atlasCut !== null && Math.abs(place - x(atlasCut)) < SNAP) onCut(null);
    else put(x.invert(place));
  };
  const up = () => (grip.current = null);
  const key = (event) => {
    const moves = {
      ArrowRight: STEP, ArrowUp: STEP, ArrowLeft: -STEP, ArrowDown: -STEP, PageUp: PAGE, PageDown: -PAGE,
      Home: -Infinity, End: Infinity,
    };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    put(latest() + moves[event.key]);
  };
  const px = x(at);
  const label = decimal(at);
  return html`<g
    class=${`cut-line${isApplied ? "" : " idle"}`}
    id="cut"
    role="slider"
    tabindex="0"
    data-arrows
    aria-label="Height of the cut"
    aria-orientation="horizontal"
    aria-valuemin="0"
    aria-valuemax=${Number(top.toFixed(DIGITS))}
    aria-valuenow=${Number(at.toFixed(DIGITS))}
    aria-valuetext=${isApplied ? `${label}: ${counted(n, "feature")}` : `${label}, not applied`}
    onPointerDown=${down}
    onPointerMove=${move}
    onPointerUp=${up}
    onPointerCancel=${up}
    onDblClick=${() => onCut(null)}
    onKeyDown=${key}
  >
    <title>Drag to cut the tree elsewhere; double click for the atlas’s cut</title>
    <rect class="cut-hit" x=${px - 11} y="0" width="22" height=${y2} />
    <line x1=${px} x2=${px} y1=${y1 - 4} y2=${y2} />
    <rect class="cut-grip" x=${px - 19} y="1" width="38" height="18" rx="4" />
    <text x=${px} y="14">${label}</text>
  </g>`;
}
