// What the run was: the manifest as tables of definitions. Keys that are not known here show under their own names.

import { decimal } from "./format.js";
import { html } from "./html.js";
import { hasSides, unitNoun } from "./sides.js";
import { visible } from "./tokens.js";

const SKIPPED = {
  duplicate_sequences: "sequences that another repeats exactly",
  short_windows: "ends of documents too short for a sequence",
  repeats_left_out: "examples whose peak follows the same tokens as a stronger one's",
};
const DEAD = "dead_neurons";
const NAMES = { settings: "Settings", versions: "Versions", model: "Model", stages: "Stages" };
const whole = new Intl.NumberFormat("en-US");

/** Everything that was left out, and why: [[reason, count]]. */
export function leftOut({ stages = {} }) {
  const reasons = [];
  for (const stage of Object.values(stages)) {
    if (!isTable(stage)) continue;
    const documents = Object.entries(stage.skipped ?? {});
    if (stage.skipped && !documents.length) reasons.push(["documents", 0]);
    for (const [reason, n] of documents) reasons.push([`documents: ${reason}`, n]);
    for (const [key, meaning] of Object.entries(SKIPPED)) if (key in stage) reasons.push([meaning, stage[key]]);
    if (DEAD in stage) reasons.push([`${unitNoun()}s without an example`, stage[DEAD]]);
  }
  return reasons;
}

/** The whole manifest. */
export function Manifest({ atlas }) {
  const { manifest } = atlas;
  const single = Object.fromEntries(Object.entries(manifest).filter(([, value]) => !isTable(value)));
  const tables = Object.entries(manifest).filter(([name, value]) => isTable(value) && name !== "stages");
  return html`<section class="manifest" aria-labelledby="manifest-title">
    <h2 id="manifest-title">The run</h2>
    <div class="manifest-columns">
      <div>
        <h3>Counts</h3>
        <${Definitions} table=${counts(atlas)} />
      </div>
      <div>
        <h3>Left out</h3>
        <${Definitions} table=${Object.fromEntries(leftOut(manifest))} />
      </div>
      ${tables.map(
        ([name, table]) =>
          html`<div key=${name}>
            <${Folded} title=${NAMES[name] ?? name} table=${table} open=${Object.keys(table).length <= 8} />
          </div>`,
      )}
      ${
        Object.keys(single).length > 0 &&
        html`<div>
          <h3>Other</h3>
          <${Definitions} table=${single} />
        </div>`
      }
    </div>
    ${isTable(manifest.stages) && html`<${Stages} stages=${manifest.stages} />`}
  </section>`;
}

const counts = (atlas) => ({
  layers: atlas.n_layers,
  "neurons a layer": hasSides() ? atlas.d_mlp / 2 : atlas.d_mlp,
  "sides of a neuron": hasSides() ? 2 : undefined,
  "width of the model": atlas.d_model,
  sequences: atlas.n_sequences,
  "tokens a sequence": atlas.seq_len,
  tokens: atlas.manifest.stages?.tokens?.tokens ?? null,
  "documents read": atlas.manifest.stages?.tokens?.documents_read ?? null,
  examples: atlas.n_examples,
  features: atlas.n_features,
});

function Folded({ title, table, open }) {
  const n = Object.keys(table).length;
  if (open)
    return html`<h3>${title}</h3>
      <${Definitions} table=${table} />`;
  return html`<details>
    <summary>
      <h3>${title}</h3>
      <span class="faint">${n} entries</span>
    </summary>
    <${Definitions} table=${table} />
  </details>`;
}

/** What each stage said of itself, one row a stage. */
function Stages({ stages }) {
  return html`<details class="stages">
    <summary>
      <h3>Stages</h3>
      <span class="faint">${Object.keys(stages).length} of them, and what each counted</span>
    </summary>
    <div class="table-scroll" role="region" tabindex="0" aria-label="What each stage counted">
      <table>
        <tbody>
          ${Object.entries(stages).map(
            ([name, facts]) =>
              html`<tr key=${name}>
                <th scope="row">${visible(name)}</th>
                <td>
                  ${
                    isTable(facts)
                      ? Object.entries(facts).map(
                          ([key, value]) =>
                            html`<span class="fact"
                              ><span class="soft">${visible(spaced(key))}</span> ${written(value)}</span
                            >`,
                        )
                      : written(facts)
                  }
                </td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
  </details>`;
}

/** A table as terms and their definitions. */
function Definitions({ table }) {
  const entries = Object.entries(table).filter(([, value]) => value !== undefined);
  if (!entries.length) return html`<p class="faint">nothing</p>`;
  return html`<dl>
    ${entries.map(
      ([name, value]) =>
        html`<div key=${name}>
          <dt>${visible(spaced(name))}</dt>
          <dd class=${typeof value === "number" ? "number" : ""}>
            ${isTable(value) ? html`<${Definitions} table=${value} />` : written(value)}
          </dd>
        </div>`,
    )}
  </dl>`;
}

const isTable = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const spaced = (key) => key.replaceAll("_", " ");

function written(value) {
  if (value === null) return html`<span class="faint">none</span>`;
  if (value === "") return html`<span class="faint">empty</span>`;
  if (Number.isInteger(value)) return whole.format(value);
  if (typeof value === "number") return decimal(value);
  return visible(typeof value === "string" ? value : JSON.stringify(value));
}
