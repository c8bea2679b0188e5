// What a person filters with: the ranges in force as chips that can be removed, and fields for the ends of a range.

import { useState } from "../vendor/hooks.js";
import { useAtlas } from "./context.js";
import { columnNamed } from "./columns.js";
import { describeRange, formatWhere, withRange } from "./filters.js";
import { shown } from "./format.js";
import { html } from "./html.js";
import { setQuery } from "./route.js";

/** The filters in force; each can be removed, and all at once. */
export function FilterChips({ ranges }) {
  const atlas = useAtlas();
  const remove = (name) => setQuery({ where: formatWhere(withRange(ranges, name, null, null)), top: null });
  if (!ranges.length) return null;
  return html`<ul class="filter-chips" aria-label="Filters">
    ${ranges.map((range) => {
      const text = describeRange(columnNamed(atlas, range.name), range);
      return html`<li key=${range.name} class="chip" data-filter=${range.name}>
        ${text}
        <button type="button" aria-label=${`Remove the filter ${text}`} onClick=${() => remove(range.name)}>×</button>
      </li>`;
    })}
    ${
      ranges.length > 1 &&
      html`<li>
        <button type="button" class="plain" onClick=${() => setQuery({ where: null, top: null })}>Clear all</button>
      </li>`
    }
  </ul>`;
}

/** A number as it stands in a field: without its unit and without zeros that say nothing. */
export const plain = (value, column) =>
  shown(value, column)
    .replace("%", "")
    .replace(/(\.\d*?)0+$/, "$1")
    .replace(/\.$/, "");

/** A field for one end of a range. Once the person has finished writing it tells a number, or null if it is empty. */
export function EndField({ column, value, label, placeholder = "", onChange }) {
  const [draft, setDraft] = useState(null);
  const factor = column.unit === "%" ? 100 : 1;
  const tidy = (number) => Number(number.toPrecision(10));
  const commit = (event) => {
    const text = event.target.value.trim();
    setDraft(null);
    if (text === "") onChange(null);
    else if (Number.isFinite(Number(text))) onChange(tidy(Number(text) / factor));
  };
  return html`<input
    class="end"
    type="number"
    step=${column.integer ? 1 : "any"}
    aria-label=${label}
    placeholder=${placeholder}
    value=${draft ?? (value === null ? "" : String(tidy(value * factor)))}
    onInput=${(event) => setDraft(event.target.value)}
    onChange=${commit}
  />`;
}
