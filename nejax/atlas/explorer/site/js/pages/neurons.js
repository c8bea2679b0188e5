// All neurons as a table that sorts and filters on every measure.

import { useMemo, useState } from "../../vendor/hooks.js";
import { chosenColumns, ColumnChoice } from "../column_choice.js";
import { columnNamed, useColumns } from "../columns.js";
import { useAtlas } from "../context.js";
import { shard } from "../data.js";
import { csv, download } from "../files.js";
import { FilterChips } from "../filter_parts.js";
import { inside, parseWhere } from "../filters.js";
import { html } from "../html.js";
import { Jump } from "../jump.js";
import { NeuronTable } from "../neuron_table.js";
import { Problem, Waiting } from "../problem.js";
import { ranked } from "../ranking.js";
import { setQuery } from "../route.js";
import { SideChoice } from "../side_choice.js";
import { hasSides, numberOf, sideOf, unitNoun } from "../sides.js";

const whole = new Intl.NumberFormat("en-US");
const NONE = new Uint32Array(0);

export function Neurons({ query }) {
  const atlas = useAtlas();
  const [mark, setMark] = useState(null);
  const shownColumns = useMemo(() => chosenColumns(atlas, query.columns), [atlas, query.columns]);
  const ranges = useMemo(() => parseWhere(atlas, query.where), [atlas, query.where]);
  const sort = useMemo(() => parseSort(atlas, query.sort), [atlas, query.sort]);
  const used = [...shownColumns.map(({ name }) => name), ...ranges.map(({ name }) => name), sort.name];
  const { columns, error, stale } = useColumns(atlas, used);
  const isReady = columns?.[sort.name] && ranges.every(({ name }) => columns[name]);
  const ids = useMemo(
    () => (isReady ? filtered(columns, ranges, sort, atlas.n_neurons) : NONE),
    [isReady, columns, ranges, sort, atlas],
  );
  if (error) return html`<${Problem} error=${error} />`;
  const top = Math.max(Math.floor(Number(query.top)) || 0, 0);
  const scrolled = (row) => row !== top && setQuery({ top: row || null }, { replace: true });
  const all = `${whole.format(atlas.n_neurons)} ${unitNoun()}s`;
  const count = ids.length === atlas.n_neurons ? `All ${all}` : `${whole.format(ids.length)} of ${all}`;
  return html`<div class="title-row">
      <h1 tabindex="-1">Neurons</h1>
      <p class="soft count" role="status">${isReady && `${count}, ${sortedBy(atlas, sort)}`}</p>
      <div class="tools">
        <${Jump} isThere=${(id) => ids.includes(id)} onJump=${(id) => setMark({ id })} />
        ${hasSides() && html`<${SideChoice} ranges=${ranges} />`}
        <${ColumnChoice} shownColumns=${shownColumns} />
        <${CsvButtons} ...${{ ids, shownColumns }} />
      </div>
    </div>
    <div class="chips-row"><${FilterChips} ranges=${ranges} /></div>
    ${isReady && !ids.length && html`<${Empty} />`}
    ${
      isReady
        ? html`<div class=${stale ? "stale" : ""}>
            <${NeuronTable} ...${{ atlas, ids, shownColumns, columns, sort, ranges, top, mark }} onTop=${scrolled} />
          </div>`
        : html`<${Waiting} />`
    }`;
}

const Empty = () =>
  html`<p class="nothing">
    No ${unitNoun()} passes these filters.${" "}
    <button type="button" onClick=${() => setQuery({ where: null, top: null })}>Clear the filters</button>
  </p>`;

/** "-mean_distance": the highest first. */
function parseSort(atlas, text = "") {
  const column = columnNamed(atlas, text.replace(/^-/, ""));
  return column ? { name: column.name, descending: text.startsWith("-") } : { name: "layer", descending: false };
}

function sortedBy(atlas, { name, descending }) {
  if (name === "layer" && !descending) return "in their order";
  return `sorted by ${columnNamed(atlas, name).title}, the ${descending ? "highest" : "lowest"} first`;
}

function filtered(columns, ranges, { name, descending }, nNeurons) {
  const order = ranked(columns[name], descending);
  if (!ranges.length) return order;
  const { mask } = inside(columns, ranges, nNeurons);
  return order.filter((id) => mask[id]);
}

/** Downloads of the rows as they stand: filtered, sorted, with the numbers as the atlas's shards have them. */
function CsvButtons({ ids, shownColumns }) {
  const atlas = useAtlas();
  const [problem, setProblem] = useState(null);
  const save = async (wanted) => {
    try {
      const values = await Promise.all(wanted.map(({ name }) => shard(`columns/${name}`)));
      const units = Array.from(ids, (id) => id % atlas.d_mlp);
      const table = {
        layer: Array.from(ids, (id) => Math.floor(id / atlas.d_mlp)),
        neuron: units, // as in the atlas's own tables
        ...(hasSides() ? { number: units.map(numberOf), side: units.map(sideOf) } : {}),
        ...Object.fromEntries(wanted.map(({ name }, i) => [name, Array.from(ids, (id) => values[i][id])])),
      };
      download("neurons.csv", csv(table), "text/csv");
      setProblem(null);
    } catch (error) {
      setProblem(error.message);
    }
  };
  return html`<span class="segments" role="group" aria-label="Download as CSV">
      <button type="button" disabled=${!ids.length} onClick=${() => save(shownColumns)}>CSV</button>
      <button type="button" disabled=${!ids.length} onClick=${() => save(atlas.columns)}>all columns</button>
    </span>
    ${problem && html`<span role="alert">${problem}</span>`}`;
}
