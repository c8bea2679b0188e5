// The little that charts need: scales, ticks, sizes, and a bottom axis.

import { useLayoutEffect, useRef, useState } from "../vendor/hooks.js";
import { decimal } from "./format.js";
import { html } from "./html.js";

/** A linear map of [low, high] to [from, to], with `.invert`. */
export function linear([low, high], [from, to]) {
  const span = high - low || 1;
  const scale = (value) => from + ((value - low) / span) * (to - from);
  scale.invert = (place) => low + ((place - from) / (to - from || 1)) * span;
  return scale;
}

/** Round values within [low, high], about `count` of them. */
export function ticks(low, high, count = 5) {
  const rough = (high - low) / count;
  if (!(rough > 0) || !Number.isFinite(rough)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** A tick's value without needless zeros: "0.2", "−1". */
export function tickText(value) {
  const size = Math.abs(value);
  return size >= 1e6 || (size > 0 && size < 1e-4) ? decimal(value) : String(value).replace("-", "−");
}

/** The width of an element as it is: [ref, width]. */
export function useWidth(initial = 640) {
  const ref = useRef(null);
  const [width, setWidth] = useState(initial);
  useLayoutEffect(() => {
    const set = (width) => setWidth(Math.max(120, Math.floor(width)));
    set(ref.current.clientWidth); // before anything is painted in a width that it does not have
    const observer = new ResizeObserver(([entry]) => set(entry.contentRect.width));
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return [ref, width];
}

/** A ref of an element that then has its own height as "--height", for the sheet. */
export function useHeightInSheet() {
  const ref = useRef(null);
  useLayoutEffect(() => {
    const element = ref.current;
    const set = () => element.style.setProperty("--height", `${element.offsetHeight}px`);
    const observer = new ResizeObserver(set);
    observer.observe(element);
    set();
    return () => observer.disconnect();
  }, []);
  return ref;
}

/** Ticks under a chart. `scale` maps values to x, `y` is where the axis lies. */
export function BottomAxis({ scale, low, high, y, title, count = 5, format = tickText }) {
  return html`<g class="axis" transform=${`translate(0 ${y})`} aria-hidden="true">
    <line x1=${scale(low)} x2=${scale(high)} />
    ${ticks(low, high, count).map(
      (value) => html`<g transform=${`translate(${scale(value)} 0)`}>
        <line y2="4" /><text y="15">${format(value)}</text>
      </g>`,
    )}
    ${title && html`<text class="axis-title" x=${(scale(low) + scale(high)) / 2} y="30">${title}</text>`}
  </g>`;
}
