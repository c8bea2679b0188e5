// The model at a glance: every neuron coloured by a measure, its distribution by layer, filters, and the run behind it.

import { useMemo, useRef } from "../../vendor/hooks.js";
import { ScaleLegend } from "../colours.js";
import { chosenMeasure, spread, useColumns } from "../columns.js";
import { useAtlas } from "../context.js";
import { EndField, FilterChips, plain } from "../filter_parts.js";
import { formatWhere, inside, parseWhere, withRange } from "../filters.js";
import { counted, shown } from "../format.js";
import { html } from "../html.js";
import { Layers } from "../layers.js";
import { leftOut, Manifest } from "../manifest.js";
import { Problem, Waiting } from "../problem.js";
import { setQuery, to } from "../route.js";
import { hasSides, unitNoun } from "../sides.js";
import { visible } from "../tokens.js";

export function Model({ query }) {
  const atlas = useAtlas();
  return html`<h1 tabindex="-1">${visible(atlas.model)}</h1>
    <p class="lead">${sentence(atlas)}</p>
    <${Measured} query=${query} />`;
}

function sentence(atlas) {
  const [dead] = leftOut(atlas.manifest).filter(([reason]) => reason.endsWith("without an example"));
  const tokens = atlas.manifest.stages?.tokens?.tokens;
  const read = tokens > 0 ? ` (${counted(tokens, "token")})` : "";
  const silent = dead?.[1] > 0 ? `; ${counted(dead[1], unitNoun())} stayed silent` : "";
  const neurons = hasSides()
    ? `${counted(atlas.n_neurons / 2, "neuron")}, each with a positive and a negative side,`
    : counted(atlas.n_neurons, "neuron");
  return [
    `${neurons} in ${counted(atlas.n_layers, "layer")}, `,
    `read over ${counted(atlas.n_sequences, "sequence")}${read} of ${visible(atlas.corpus)}. `,
    `${counted(atlas.n_examples, "example")} fall into ${counted(atlas.n_features, "feature")}${silent}.`,
  ].join("");
}

/** The figure of the measure, and below it the run: not before there is a figure, which would push it down. */
function Measured({ query }) {
  const atlas = useAtlas();
  const former = useRef(null);
  const column = chosenMeasure(atlas, query.measure);
  const ranges = useMemo(() => parseWhere(atlas, query.where), [atlas, query.where]);
  const { columns, error } = useColumns(atlas, [column.name, ...ranges.map(({ name }) => name)]);
  const values = columns?.[column.name];
  const found = useMemo(
    () => (columns && ranges.length ? inside(columns, ranges, atlas.n_neurons) : null),
    [columns, ranges, atlas],
  );
  if (values) former.current = { column, values };
  const controls = html`<${Controls} column=${column} query=${query} />`;
  if (error) return html`${controls}<${Problem} error=${error} /><${Manifest} atlas=${atlas} />`;
  return html`${controls}
    <${Filters} ...${{ column, values, ranges, found, query }} />
    ${former.current
      ? html`<div class=${values ? "" : "stale"}><${Figure} ...${former.current} ...${{ ranges, found, query }} /></div>
          <${Manifest} atlas=${atlas} />`
      : html`<${Waiting} />`}`;
}

function Controls({ column, query }) {
  const atlas = useAtlas();
  const orders = { index: null, value: "value" };
  const order = query.order === "value" ? "value" : "index";
  return html`<div class="measure-row">
    <label>
      Colour by
      <select id="measure" value=${column.name} onChange=${(event) => setQuery({ measure: event.target.value })}>
        ${atlas.columns.map(({ name, title }) => html`<option key=${name} value=${name}>${title}</option>`)}
      </select>
    </label>
    <span class="measure-help soft">${column.help}</span>
    <span class="order">
      <span class="soft" id="order">Order in a layer</span>
      <span class="segments" role="group" aria-labelledby="order">
        ${Object.entries(orders).map(
          ([name, value]) =>
            html`<button type="button" aria-pressed=${order === name} onClick=${() => setQuery({ order: value })}>
              by ${name}
            </button>`,
        )}
      </span>
    </span>
  </div>`;
}

/** The range of the measure as numbers, all filters, and how many neurons they leave. */
function Filters({ column, values, ranges, found, query }) {
  const { low = null, high = null } = ranges.find(({ name }) => name === column.name) ?? {};
  const change = changeRange(column, ranges);
  const isSet = low !== null || high !== null;
  const n = found?.n ?? 0;
  const { min, max } = values ? spread(values) : { min: NaN, max: NaN };
  const field = (label, value, placeholder, onChange) =>
    html`<${EndField} label=${`${label} ${column.title}`} ...${{ column, value, placeholder, onChange }} />`;
  return html`<div class="filter-row">
    <span class="between">
      <span class="soft">${column.title} from</span>
      ${field("Lowest", low, plain(min, column), (value) => change(value, high))}
      <span class="soft">to</span>
      ${field("Highest", high, plain(max, column), (value) => change(low, value))}
      ${column.unit && html`<span class="soft">${column.unit}</span>`}
      ${isSet && html`<button type="button" class="plain" onClick=${() => change(null, null)}>Clear</button>`}
    </span>
    <${FilterChips} ranges=${ranges} />
    <span class="found" role="status">
      ${
        found &&
        html`<b>${counted(n, unitNoun())}</b> inside${" "}
          ${
            n > 0 &&
            html`<a href=${to.neurons({ where: query.where, sort: `-${column.name}` })}
              >${n === 1 ? "show it" : `show these ${n.toLocaleString("en-US")}`} in the table</a
            >`
          }`
      }
    </span>
  </div>`;
}

const changeRange = (column, ranges) => (low, high, options) =>
  setQuery({ where: formatWhere(withRange(ranges, column.name, low, high)) }, options);

function Figure({ column, values, ranges, found, query }) {
  const atlas = useAtlas();
  const range = useMemo(() => spread(values), [values]);
  if (!range.n) return html`<p class="loading">No ${unitNoun()} has a value of ${column.title}.</p>`;
  const format = (value) => shown(value, column);
  const note =
    "The colours and the axis go from the 1st to the 99th percentile; " +
    `what lies beyond (${format(range.min)} to ${format(range.max)}) is at their ends. All histograms have one scale.`;
  return html`<${Layers}
      ...${{ atlas, values, column, range, mask: found?.mask ?? null, byValue: query.order === "value" }}
      filter=${ranges.find(({ name }) => name === column.name)}
      onFilter=${changeRange(column, ranges)}
    />
    <p class="figure-note">
      <${ScaleLegend}
        title=${column.title}
        low=${range.low}
        high=${range.high}
        format=${format}
        missing=${range.n < atlas.n_neurons}
      />
      <span>${note}</span>
    </p>`;
}
