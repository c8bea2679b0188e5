// Which columns a table shows.

import { useRef } from "../vendor/hooks.js";
import { useAtlas } from "./context.js";
import { html } from "./html.js";
import { setQuery } from "./route.js";

const USUAL = [
  "n_examples",
  "n_features",
  "max_activation",
  "firing_rate",
  "mean_distance",
  "max_distance",
  "silhouette",
  "height",
];

/** The columns to show, of an address's "mean,variance"; the usual ones where it names none. */
export function chosenColumns(atlas, text = "") {
  const named = new Set(text.split(","));
  const found = atlas.columns.filter(({ name }) => named.has(name));
  return found.length ? found : usual(atlas);
}

const usual = (atlas) => atlas.columns.filter(({ name }) => USUAL.includes(name));

/** A list of all columns to choose from. It closes when it loses the focus. */
export function ColumnChoice({ shownColumns }) {
  const atlas = useAtlas();
  const details = useRef(null);
  const close = () => {
    if (details.current) details.current.open = false;
  };
  const choose = (names) => {
    const isUsual =
      names.join() ===
      usual(atlas)
        .map(({ name }) => name)
        .join();
    setQuery({ columns: isUsual ? null : names.join() });
  };
  const isShown = (column) => shownColumns.includes(column);
  const toggle = (column) =>
    choose(atlas.columns.filter((one) => isShown(one) !== (one === column)).map(({ name }) => name));
  const leave = (event) => {
    if (!event.currentTarget.contains(event.relatedTarget)) close(); // also while the page is taken away
  };
  const press = (event) => {
    if (event.key !== "Escape") return;
    close();
    details.current.querySelector("summary").focus();
  };
  return html`<details ref=${details} class="column-choice" onFocusOut=${leave} onKeyDown=${press}>
    <summary class="button">Columns (${shownColumns.length} of ${atlas.columns.length})</summary>
    <div class="column-list panel" tabindex="-1">
      ${atlas.columns.map(
        (column) =>
          html`<label key=${column.name} title=${column.help}>
            <input
              type="checkbox"
              name=${column.name}
              checked=${isShown(column)}
              disabled=${isShown(column) && shownColumns.length === 1}
              onChange=${() => toggle(column)}
            />
            ${column.title}
          </label>`,
      )}
      <p>
        <button type="button" class="plain" onClick=${() => choose(atlas.columns.map(({ name }) => name))}>All</button>
        <button type="button" class="plain" onClick=${() => choose(usual(atlas).map(({ name }) => name))}>
          The usual ones
        </button>
      </p>
    </div>
  </details>`;
}
