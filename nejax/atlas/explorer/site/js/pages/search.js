// Search: the texts that hold a phrase, and the features that peak inside it.

import { useEffect, useState } from "../../vendor/hooks.js";
import { useAtlas } from "../context.js";
import { useShards } from "../data.js";
import { find, PAGE, PEAKS_PAGE } from "../find.js";
import { counted, featureName, percent } from "../format.js";
import { html } from "../html.js";
import { Match } from "../matches.js";
import { Waiting } from "../problem.js";
import { to } from "../route.js";
import { blockOf, readSequence } from "../sequences.js";
import { hasSides } from "../sides.js";
import { visible } from "../tokens.js";
import { readings } from "../words.js";

const FIRST_PEAKS = 12;

export function Search({ query }) {
  const text = query.q ?? "";
  const page = /^[1-9]\d{0,6}$/.test(query.page) ? Number(query.page) : 1;
  const { found, error, stale } = useFound(text, page);
  const told = error ? error.message : found ? summary(found) : text && "Searching …";
  return html`
    <h1 tabindex="-1">${text ? html`Search for “${visible(text)}”` : "Search"}</h1>
    <p class="lead" role="status" id="search-status">${told}</p>
    ${text && html`<p class="soft" id="search-left-out">${leftOut(text)}</p>`}
    ${!text && html`<${Help} />`}
    ${found &&
    html`<div class=${stale ? "stale" : ""}>
      <${Peaks} key=${found.query} found=${found} />
      <${Texts} found=${found} page=${page} />
    </div>`}
    ${text && (error || (found && !found.n_sequences)) && html`<${Help} />`}
  `;
}

/** The answer to a query: {found, error, stale}. The former one stays until the new one is there. */
function useFound(text, page) {
  const atlas = useAtlas();
  const [state, setState] = useState({ found: null, error: null, key: "" });
  const key = JSON.stringify([text, page]);
  useEffect(() => {
    if (!text) return setState({ found: null, error: null, key });
    let current = true;
    find(atlas, text, (page - 1) * PAGE).then(
      (found) => current && setState({ found, error: null, key }),
      (error) => current && setState({ found: null, error, key }),
    );
    return () => (current = false);
  }, [atlas, key]);
  return { ...state, stale: state.key !== key };
}

function summary({ n_sequences, n_peaks }) {
  const holds = n_sequences === 1 ? "holds" : "hold";
  const texts = n_sequences ? `${counted(n_sequences, "text")} ${holds} it` : "No text holds it";
  const features = n_peaks ? counted(n_peaks, "feature") : "no feature";
  return `${texts}; ${features} ${n_peaks > 1 ? "peak" : "peaks"} inside it.`;
}

/** What of a query is not looked for. */
function leftOut(query) {
  const phrases = readings(query);
  if (!phrases.length) return "A single space is not in the index: at least two in a row are.";
  const hasSigns = /[^\p{L}\p{N}\p{M}\s]/u.test(query.trim().replace(/\*$/, ""));
  return hasSigns && !phrases[0].isSigns && "Only its words are looked for, whatever signs stand between them.";
}

function Peaks({ found }) {
  const atlas = useAtlas();
  const [state, setState] = useState({ peaks: found.peaks, shown: FIRST_PEAKS, error: null });
  const { query, n_peaks: n } = found;
  const { peaks, shown, error } = state;
  if (!n) return null;
  const next = shown < PEAKS_PAGE ? PEAKS_PAGE : shown + PEAKS_PAGE;
  const more = () => {
    if (peaks.length >= Math.min(next, n)) return setState({ peaks, shown: next, error: null });
    find(atlas, query, 0, peaks.length).then(
      (later) => setState({ peaks: [...peaks, ...later.peaks], shown: next, error: null }),
      (error) => setState({ ...state, error }),
    );
  };
  return html`<section class="search-part" id="peaks" aria-labelledby="peaks-title">
    <h2 id="peaks-title">Peak inside it <span class="faint">${n > shown && `1 to ${shown} of ${whole(n)}`}</span></h2>
    <p class="soft">Features with examples whose peak is a token of the words or signs found, or
      a part of a word that is itself what was asked for, and how many of theirs.</p>
    <ol class="peak-list">
      ${peaks.slice(0, shown).map((peak) => html`<${Peak} key=${peak.slice(0, 3).join()} peak=${peak} />`)}
    </ol>
    ${error && html`<p role="alert">${error.message}</p>`}
    <div class="row">
      ${n > shown && html`<button type="button" onClick=${more}>Show ${whole(Math.min(next, n) - shown)} more</button>`}
      ${shown > FIRST_PEAKS &&
      html`<button type="button" onClick=${() => setState({ ...state, shown: FIRST_PEAKS })}>Show fewer</button>`}
    </div>
  </section>`;
}

const whole = (n) => n.toLocaleString("en-US");

function Peak({ peak: [layer, neuron, feature, n, nExamples] }) {
  const name = featureName(layer, neuron, feature);
  return html`<li>
    <a href=${to.feature(layer, neuron, feature)}>${name}</a>
    <span class="share" aria-hidden="true"><span style=${{ width: percent(n / nExamples) }} /></span>
    <span class="soft number">${n} of ${nExamples}<span class="visually-hidden"> examples</span></span>
  </li>`;
}

function Texts({ found, page }) {
  const { query, n_sequences: n, sequences } = found;
  const { data, error } = useShards([...new Set(sequences.map(blockOf))]);
  const blocks = new Map(data?.map((block) => [blockOf(block.first), block]));
  const ready = sequences.filter((sequence) => blocks.has(blockOf(sequence)));
  if (!n) return null;
  const last = Math.ceil(n / PAGE);
  return html`<section class="search-part" id="texts" aria-labelledby="texts-title">
    <h2 id="texts-title">Texts <span class="faint">${range(page, n, sequences.length)}</span></h2>
    ${!sequences.length && html`<p>There is no page ${page}. <a href=${to.search(query)}>To the first page</a></p>`}
    <p class="soft">
      Those in which the most examples peak inside it come first. Below each text: the features that peak at the words found, as layer/neuron/feature and activation${hasSides() &&
      ", × −1 on a side −"}.
    </p>
    ${error && html`<p role="alert">${error.message}</p>`}
    ${!error && ready.length < sequences.length && html`<${Waiting} />`}
    <ol class="matches">
      ${ready.map((number) => {
        const sequence = readSequence(blocks.get(blockOf(number)), number);
        return html`<${Match} key=${`${query} ${number}`} number=${number} sequence=${sequence} query=${query} />`;
      })}
    </ol>
    ${last > 1 && html`<${Pages} query=${query} page=${page} last=${last} />`}
  </section>`;
}

const range = (page, n, listed) =>
  listed && n > listed && `${(page - 1) * PAGE + 1} to ${(page - 1) * PAGE + listed} of ${n.toLocaleString("en-US")}`;

function Pages({ query, page, last }) {
  const link = (number, title, rel) => {
    if (number < 1 || number > last) return html`<span class="button" aria-disabled="true">${title}</span>`;
    const address = to.search(query, { page: number > 1 ? number : null });
    return html`<a class="button" rel=${rel} href=${address} onClick=${toTop}>${title}</a>`;
  };
  return html`<nav class="row pages" aria-label="Pages of texts">
    ${link(page - 1, "← Before", "prev")}
    <span class="soft">Page ${page} of ${last.toLocaleString("en-US")}</span>
    ${link(page + 1, "Next →", "next")}
  </nav>`;
}

const toTop = () => document.getElementById("texts").scrollIntoView();

function Help() {
  const example = (text) => html`<a href=${to.search(text)}><code>${text}</code></a>`;
  return html`<section class="search-help" aria-label="What can be searched for">
    <dl>
      <dt>${example("the")}</dt>
      <dd>A word: every text that holds it, and every feature with examples that peak at any of its tokens.</dd>
      <dt>${example("number of")}</dt>
      <dd>A phrase: its words one after the other, whatever stands between them. Case and punctuation do not count.</dd>
      <dt>${example("numb*")}</dt>
      <dd>A star at the end: the last word may go on. At least two letters before it.</dd>
      <dt><code>東京</code></dt>
      <dd>In scripts that are written without spaces, any part of a text: a letter, a word, a sentence.</dd>
      <dt>${example("==")} ${example("⏎⏎")}</dt>
      <dd>
        Without a letter or digit, the signs as they stand. The pages' own signs stand for what they show: ⏎ for a line
        break, ·· for two spaces. A single space is not in the index.
      </dd>
      <dt><code>3/185</code> <code>3/185/0</code></dt>
      <dd>In the field above, a neuron or a feature that there is: its page. In quotes it is a text.</dd>
    </dl>
    <p class="soft">
      A text is one sequence, as the model reads it: what begins in one and ends in the next of its document is not found.
    </p>
  </section>`;
}
