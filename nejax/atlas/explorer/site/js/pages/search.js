// Search: the features that peak at a token, and the texts that hold a phrase.

import { useEffect, useState } from "../../vendor/hooks.js";
import { useAtlas } from "../context.js";
import { useShards } from "../data.js";
import { find, PAGE } from "../find.js";
import { counted, featureName, percent } from "../format.js";
import { html } from "../html.js";
import { Match } from "../matches.js";
import { Waiting } from "../problem.js";
import { to } from "../route.js";
import { blockOf, readSequence } from "../sequences.js";
import { hasSides } from "../sides.js";
import { peakName, visible } from "../tokens.js";

const FIRST_PEAKS = 12;
const MOST_PEAKS = 50; // that a search lists

export function Search({ query }) {
  const text = query.q ?? "";
  const page = /^[1-9]\d{0,6}$/.test(query.page) ? Number(query.page) : 1;
  const { found, error, stale } = useFound(text, page);
  const told = error ? error.message : found ? summary(found) : text && "Searching …";
  return html`
    <h1 tabindex="-1">${text ? html`Search for “${visible(text)}”` : "Search"}</h1>
    <p class="lead" role="status" id="search-status">${told}</p>
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

function summary({ n_sequences, peaks }) {
  const holds = n_sequences === 1 ? "holds" : "hold";
  const texts = n_sequences ? `${counted(n_sequences, "text")} ${holds} it` : "No text holds it";
  const atLeast = peaks.length === MOST_PEAKS ? "at least " : "";
  const features = peaks.length ? `${atLeast}${counted(peaks.length, "feature")}` : "no feature";
  return `${texts}; ${features} ${peaks.length > 1 ? "peak" : "peaks"} at it.`;
}

function Peaks({ found: { query, peaks } }) {
  const [all, setAll] = useState(false);
  const rest = peaks.length - FIRST_PEAKS;
  return html`<section class="search-part" id="peaks" aria-labelledby="peaks-title">
    <h2 id="peaks-title">Peak at this token</h2>
    ${peaks.length
      ? html`<p class="soft">
            Features with examples that peak at the token “${peakName(query)}”, and how many of theirs do.
          </p>
          <ol class="peak-list">
            ${peaks.slice(0, all ? undefined : FIRST_PEAKS).map((peak) => html`<${Peak} peak=${peak} />`)}
          </ol>
          ${rest > 0 &&
          html`<button type="button" aria-expanded=${all} onClick=${() => setAll(!all)}>
            ${all ? "Show fewer" : `Show all ${peaks.length}`}
          </button>`}`
      : html`<p class="soft">No example peaks at a token that is exactly “${peakName(query)}”.</p>`}
  </section>`;
}

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
      Below each text: the features that peak at the words found, as layer/neuron/feature and activation${hasSides() &&
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
      <dd>A word: every text that holds it, and every feature with examples that peak at exactly this token.</dd>
      <dt>${example("number of")}</dt>
      <dd>A phrase: its words one after the other, whatever stands between them. Case and punctuation do not count.</dd>
      <dt>${example("numb*")}</dt>
      <dd>A star at the end: the last word may go on. At least two letters before it.</dd>
      <dt>${example("==")}</dt>
      <dd>A sign has no words, so no text is found by it; but features that peak at it are.</dd>
    </dl>
  </section>`;
}
