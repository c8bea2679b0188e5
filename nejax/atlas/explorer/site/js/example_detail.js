// The selected example in full, at the foot of the screen: its whole window, and where it is from.

import { useEffect } from "../vendor/hooks.js";
import { featureColour } from "./colours.js";
import { decimal } from "./format.js";
import { html } from "./html.js";
import { setQuery, to } from "./route.js";
import { activationName } from "./sides.js";
import { Readout, useTokenCursor } from "./token_cursor.js";
import { Tokens, visible, windowPieces } from "./tokens.js";

const close = () => setQuery({ example: null });

export function ExampleDetail({ neuron, clustering, selected, scale, isOwn }) {
  const example = neuron.examples[selected];
  const feature = clustering.labels[selected];
  const pieces = windowPieces(neuron, example);
  const cursor = useTokenCursor(pieces, example.position);
  useEffect(() => {
    const onKey = (event) => {
      if (event.key !== "Escape" || event.defaultPrevented) return;
      if (!event.target.matches?.("input, textarea, dialog *")) close();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  const step = (by) => {
    const next = selected + by;
    const exists = next >= 0 && next < neuron.examples.length;
    const name = by < 0 ? "Stronger example" : "Weaker example";
    return html`<button type="button" aria-label=${name} title=${name} disabled=${!exists}
      onClick=${() => setQuery({ example: next })}>
      ${by < 0 ? "↑" : "↓"}
    </button>`;
  };
  return html`<section class="example-detail" id="example-detail"
    aria-label=${`Example ${selected}`} data-example=${selected}
    style=${{ "--colour": featureColour(feature) }}>
    <header>
      <h2><span class="swatch" />Example ${selected}</h2>
      <span class="soft">
        ${activationName(neuron.neuron)}${" "}${decimal(example.activation)} · ${" "}
        <a href=${to.feature(neuron.layer, neuron.neuron, example.feature)}
          >${isOwn ? "" : "the atlas’s "}feature ${example.feature}</a>
        ${" "}· <a
          href=${to.sequence(example.sequence, { at: example.position })}>sequence ${example.sequence}</a>, position
        ${" "}${example.position} · <bdi>${visible(example.document)}</bdi>
      </span>
      <span class="tools">
        ${step(-1)} ${step(1)}
        <button type="button" aria-label="Close the example" title="Close (Esc)" onClick=${close}>×</button>
      </span>
    </header>
    ${pieces.length
      ? html`<div class="example-text" ...${cursor.handlers} aria-label=${`Text of example ${selected}`}>
          <${Tokens} pieces=${pieces} scale=${scale} peak=${example.position - example.start}
            selected=${cursor.selected} />
          <${Readout} piece=${cursor.piece} peak=${example.position} />
        </div>`
      : html`<p
        class="faint">This export keeps the text of a feature’s strongest examples only; the sequence has it.</p>`}
  </section>`;
}
