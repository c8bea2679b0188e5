// A sequence: the whole text as the model read it, and at each token the features that have an example peaking there.

import { useRef } from "../../vendor/hooks.js";
import { useAtlas } from "../context.js";
import { useShards } from "../data.js";
import { counted } from "../format.js";
import { html } from "../html.js";
import { PeaksAt } from "../peaks_at.js";
import { Problem, Waiting } from "../problem.js";
import { setQuery, to } from "../route.js";
import { blockOf, readSequence } from "../sequences.js";
import { visible } from "../tokens.js";
import { phraseSpans } from "../words.js";

const STEPS = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };

export function SequencePage({ ids: [id], query }) {
  const atlas = useAtlas();
  const number = whole(id, atlas.n_sequences);
  const { data, error, stale } = useShards(number === null ? [] : [blockOf(number)]);
  if (number === null) {
    const message = `There is no sequence ${visible(id ?? "")}; expected 0 to ${atlas.n_sequences - 1}.`;
    return html`<${Problem} error=${{ message }} />`;
  }
  if (error) return html`<${Problem} error=${error} />`;
  if (!data?.length || (stale && blockOf(data[0].first) !== blockOf(number))) return html`<${Waiting} />`;
  return html`<${Sequence} number=${number} sequence=${readSequence(data[0], number)} query=${query} />`;
}

function Sequence({ number, sequence, query }) {
  const atlas = useAtlas();
  const { document, offset, pieces } = sequence;
  const at = whole(query.at, pieces.length);
  const layer = whole(query.layer, atlas.n_layers);
  const examples = layer === null ? sequence.examples : sequence.examples.filter((example) => example.layer === layer);
  const counts = pieces.map(() => 0);
  for (const { position } of examples) counts[position]++;
  return html`
    <div class="title-row">
      <h1 tabindex="-1">Sequence ${number}</h1>
      <${Neighbours} number=${number} />
    </div>
    <p class="lead">
      ${counted(pieces.length - 1, "token")} of <strong>${visible(document)}</strong>, ${place(offset)}.${" "}
      ${counted(examples.length, "example")}${layer === null ? "" : ` of layer ${layer}`}${" "}
      ${examples.length === 1 ? "peaks" : "peak"} here, at ${counts.filter(Boolean).length} of its tokens.
    </p>
    <div class="row sequence-tools">
      <label>Layer <${LayerChoice} layer=${layer} /></label>
      <${CountLegend} most=${Math.max(...counts)} />
    </div>
    <div class="sequence-page">
      <${Text} number=${number} pieces=${pieces} counts=${counts} at=${at} query=${query} />
      <${PeaksAt} pieces=${pieces} examples=${examples} counts=${counts} at=${at} address=${addressOf(number, query)} />
    </div>
  `;
}

const place = (offset) => (offset ? `after ${counted(offset, "token")} of it` : "from its start");

/** position -> the address of this page with that position chosen. */
const addressOf = (number, query) => (position) => to.sequence(number, { ...query, at: position });

/** A whole number below `n` from an address, or null. */
const whole = (text, n) => (/^\d{1,9}$/.test(text ?? "") && Number(text) < n ? Number(text) : null);

function Neighbours({ number }) {
  const { n_sequences: n } = useAtlas();
  const link = (other, title, rel) =>
    other >= 0 && other < n && html`<a class="button" rel=${rel} href=${to.sequence(other)}>${title}</a>`;
  return html`<nav class="tools" aria-label="Neighbouring sequences">
    ${link(number - 1, `← Sequence ${number - 1}`, "prev")} ${link(number + 1, `Sequence ${number + 1} →`, "next")}
  </nav>`;
}

function LayerChoice({ layer }) {
  const { n_layers: n } = useAtlas();
  return html`<select id="layer" value=${layer ?? ""} onChange=${(event) => setQuery({ layer: event.target.value })}>
    <option value="">all</option>
    ${Array.from({ length: n }, (_, i) => html`<option value=${i}>${i}</option>`)}
  </select>`;
}

function CountLegend({ most }) {
  return html`<figure class="legend" aria-label="What the shades mean">
    <figcaption>examples that peak at a token</figcaption>
    <span>0</span><span class="legend-bar activation" /><span>${most}</span>
  </figure>`;
}

/** The tokens, each a link that chooses it. One of them is reached with Tab, the others with the arrow keys. */
function Text({ number, pieces, counts, at, query }) {
  const list = useRef(null);
  const most = Math.max(...counts, 1);
  const hits = phraseSpans(pieces.map((piece, i) => (i ? piece : { ...piece, text: "" })), query.q ?? "");
  const isHit = (i) => hits.some(({ first, last }) => first <= i && i <= last);
  const onKeyDown = (event) => {
    const step = STEPS[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const from = Number(event.target.closest("[data-position]")?.dataset.position ?? at ?? 0);
    const next = Math.min(Math.max(from + step, 0), pieces.length - 1);
    setQuery({ at: next }, { replace: true });
    list.current.querySelector(`[data-position="${next}"]`).focus();
  };
  return html`<p class="tokens sequence-text" dir="auto" data-arrows ref=${list} onKeyDown=${onKeyDown}>
    ${pieces.map(({ id, text, position }) => {
      const count = counts[position];
      const token = `${JSON.stringify(text.slice(0, 60))}, token ${id}`;
      const what = `${token}, position ${position}: ${counted(count, "example")}`;
      return html`<a
          key=${position}
          class=${`token${isHit(position) ? " hit" : ""}${count ? "" : " quiet"}`}
          href=${addressOf(number, query)(position)}
          data-position=${position}
          tabindex=${position === (at ?? 0) ? 0 : -1}
          aria-current=${position === at ? "true" : undefined}
          aria-label=${what}
          title=${what}
          style=${{ "--shade-activation": (count / most).toFixed(3) }}
          >${visible(text)}</a
        >${text.includes("\n") && html`<br />`}`;
    })}
  </p>`;
}
