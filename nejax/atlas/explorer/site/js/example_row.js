// One example: its rank and activation, its text around the peak or the whole sequence, and where it comes from.

import { useLayoutEffect, useRef } from "../vendor/hooks.js";
import { useShards } from "./data.js";
import { toggleWhole } from "./example_view.js";
import { shown } from "./format.js";
import { html } from "./html.js";
import { to } from "./route.js";
import { Readout, useTokenCursor } from "./token_cursor.js";
import { Tokens, visible, windowPieces } from "./tokens.js";

const BLOCK = 16; // sequences in a shard

export function ExampleRow({ neuron, number, rank, view, isCentral, canBeWhole }) {
  const example = neuron.examples[number];
  const isWhole = view.whole.has(number);
  const { row, act, settle } = useStillPeak();
  useLayoutEffect(() => settle({ isLast: !isWhole }), [isWhole]);
  const byCohesion = view.order === "central";
  const value = byCohesion ? example.cohesion : example.activation;
  const facts = `activation ${shown(example.activation)}, cohesion ${shown(example.cohesion)}`;
  return html`<li class="example" data-example=${number} ref=${row}>
    <span class="example-rank" title=${facts}>
      <span class="faint">${rank}</span>
      <span class="example-value">${shown(value)}</span>
    </span>
    ${
      isWhole
        ? html`<${WholeText} neuron=${neuron} example=${example} view=${view} rank=${rank} facts=${facts}
          onShown=${() => settle({ isLast: true })} />`
        : html`<${Text} neuron=${neuron} example=${example} view=${view} rank=${rank} facts=${facts}
          pieces=${windowPieces(neuron, example, view)} />`
    }
    <span class="example-place">
      ${isCentral && html`<span class="badge" title="The example most like the others of its feature">central</span>`}
      <a href=${to.sequence(example.sequence, { at: example.position })} title=${visible(example.document)}
        ><bdi>${visible(example.document)}</bdi></a>
      <span class="faint">${example.position}</span>
      ${
        canBeWhole &&
        html`<button type="button" class="whole-button" aria-pressed=${isWhole} title="The whole sequence"
          aria-label=${`Whole sequence of example ${rank}`} onClick=${() => act(() => toggleWhole(view, number))}
          >${isWhole ? "less" : "whole"}</button>`
      }
    </span>
  </li>`;
}

/** {row: ref, act, settle}: `act` notes where the row's peak is on the screen, `settle` scrolls it back to there. */
function useStillPeak() {
  const row = useRef(null);
  const noted = useRef(undefined);
  const top = () => row.current?.querySelector(".token.peak")?.getBoundingClientRect().top;
  const act = (action) => {
    noted.current = top();
    action();
  };
  const settle = ({ isLast }) => {
    const moved = top() - noted.current;
    if (moved) scrollBy({ top: moved, behavior: "instant" });
    if (isLast) noted.current = undefined;
  };
  return { row, act, settle };
}

/** Tokens around the peak: in a line with the peak where it is in all lines, or flowing. */
function Text({ neuron, example, view, rank, facts, pieces, note = "", flows = view.layout === "text", breaks = false }) {
  const cursor = useTokenCursor(pieces, example.position);
  const peak = pieces.findIndex(({ position }) => position === example.position);
  const options = {
    scale: neuron.measures.max_activation,
    shade: view.shade,
    spaces: view.spaces,
    selected: cursor.selected,
  };
  const text = flows
    ? html`<${Tokens} pieces=${pieces} peak=${peak} breaks=${breaks} ...${options} />`
    : html`<span class="line" style=${{ gridTemplateColumns: columns(view) }}>
        <span class="line-before"><${Tokens} dir="ltr" pieces=${pieces.slice(0, peak)} ...${options} /></span>
        <span class="line-after"><${Tokens} dir="ltr" pieces=${pieces.slice(peak)} peak=${0} ...${options} /></span>
      </span>`;
  return html`<div class="example-text" ...${cursor.handlers} aria-label=${`Text of example ${rank}`}>
    ${text}
    <${Readout} piece=${cursor.piece} peak=${example.position} facts=${`in the example: ${facts}`} />
    ${note && html`<p class="faint">${note}</p>`}
  </div>`;
}

/** Room for the context on both sides, by how many tokens are asked for; the peak itself needs some. */
const columns = ({ before, after }) => `minmax(0, ${before + 0.5}fr) minmax(6em, ${after + 2.5}fr)`;

function WholeText({ neuron, example, view, rank, facts, onShown }) {
  const block = Math.floor(example.sequence / BLOCK);
  const { data, error } = useShards([`sequences/${block}`]);
  useLayoutEffect(() => void (data && onShown()), [data]);
  if (error) return html`<div class="example-text faint">${error.message}</div>`;
  if (!data) {
    const pieces = windowPieces(neuron, example, view);
    return html`<${Text} neuron=${neuron} example=${example} view=${view} rank=${rank} facts=${facts} pieces=${pieces}
      note="Loading …" />`;
  }
  const pieces = wholePieces(data[0], neuron, example);
  const n = pieces.filter(({ activation }) => activation === undefined).length;
  const note = n
    ? `The atlas keeps activations around the peak only: those of ${n} tokens here are unknown, and unshaded.`
    : "";
  return html`<${Text} neuron=${neuron} example=${example} view=${view} rank=${rank} facts=${facts} pieces=${pieces}
    note=${note} flows breaks />`;
}

/** The tokens of an example's whole sequence; those outside of its window have no activation. */
function wholePieces(block, neuron, example) {
  const known = new Map(windowPieces(neuron, example).map((piece) => [piece.position, piece]));
  return block.sequences[example.sequence - block.first].tokens.map((token, position) => {
    const [id, text] = block.tokens[token];
    return known.get(position) ?? { id, text, position };
  });
}
