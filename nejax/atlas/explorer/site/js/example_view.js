// How examples are shown: what of it the address says, and the controls that change it.

import { html } from "./html.js";
import { setQuery } from "./route.js";

const SHADES = [
  ["activation", "Activation"],
  ["importance", "Importance"],
  ["both", "Both"],
  ["none", "None"],
];
const LAYOUTS = [
  ["lines", "Aligned"],
  ["text", "Text"],
];
const ORDERS = [
  ["strength", "Strongest first"],
  ["central", "Central first"],
];

/**
 * The view that an address asks for; what it does not say, or says wrongly, is as by default.
 *
 * shade, layout, order: names as above. before, after: tokens of context. spaces: shown as signs.
 * whole: set of the examples (by their number in the neuron) that are shown as whole sequences.
 */
export function readView(atlas, query) {
  const defaults = defaultWindow(atlas);
  const number = (text, most, other) => (/^\d{1,4}$/.test(text ?? "") ? Math.min(Number(text), most) : other);
  const shade = choice(SHADES, query.shade);
  return {
    shade: atlas.has_importance || shade === "none" ? shade : "activation",
    layout: choice(LAYOUTS, query.layout),
    order: choice(ORDERS, query.order),
    before: number(query.window, atlas.window_before, defaults.before),
    after: number(query.after, atlas.window_after, defaults.after),
    spaces: query.spaces === "1",
    whole: new Set(
      (query.whole ?? "")
        .split(",")
        .filter((text) => /^\d{1,6}$/.test(text))
        .map(Number),
    ),
  };
}

/** The part of an address that is about the view alone, to be kept from one feature to the next. */
export const viewQuery = ({ shade, layout, order, window, after, spaces }) => ({
  shade,
  layout,
  order,
  window,
  after,
  spaces,
});

/** Show an example's whole sequence, or its window again. */
export function toggleWhole(view, example) {
  const whole = new Set(view.whole);
  if (!whole.delete(example)) whole.add(example);
  setQuery({ whole: [...whole].sort((a, b) => a - b).join(",") });
}

/** The controls of a view. `ordered`: whether the order can be chosen. */
export function ViewControls({ atlas, view, ordered = true }) {
  return html`<div class="view-controls" role="group" aria-label="How examples are shown">
    <${Choice} name="shade" label="Shade" options=${SHADES} value=${view.shade}
      refused=${atlas.has_importance ? [] : ["importance", "both"]} reason="no-importance" />
    <${Choice} name="layout" label="Layout" options=${LAYOUTS} value=${view.layout} />
    ${ordered && html`<${Choice} name="order" label="Order" options=${ORDERS} value=${view.order} />`}
    <${Reach} name="window" label="Before" value=${view.before} most=${atlas.window_before}
      usual=${defaultWindow(atlas).before} />
    <${Reach} name="after" label="After" value=${view.after} most=${atlas.window_after}
      usual=${defaultWindow(atlas).after} />
    <label><input type="checkbox" name="spaces" checked=${view.spaces}
      onChange=${({ target }) => setQuery({ spaces: target.checked ? 1 : null })} /> Show spaces</label>
  </div>
  ${!atlas.has_importance && html`<p class="soft how" id="no-importance">
    Token importance was not measured. The command that built this atlas adds it when it is run again with one flag
    more: <code>build_atlas.py … --importance</code>
  </p>`}`;
}

const defaultWindow = (atlas) => ({
  before: Math.min(16, atlas.window_before),
  after: Math.min(6, atlas.window_after),
});

const choice = (options, value) => (options.find(([name]) => name === value) ?? options[0])[0];

function Choice({ name, label, options, value, refused = [], reason }) {
  const choose = (option) => setQuery({ [name]: option === options[0][0] ? null : option });
  return html`<div class="control" role="group" aria-label=${label}>
    <span class="control-name" aria-hidden="true">${label}</span>
    <span class="segments">
      ${options.map(
        ([option, title]) =>
          html`<button type="button" key=${option} name=${name} value=${option} aria-pressed=${option === value}
            disabled=${refused.includes(option)} aria-describedby=${refused.includes(option) ? reason : undefined}
            onClick=${() => choose(option)}>${title}</button>`,
      )}
    </span>
  </div>`;
}

/** So many tokens on one side of the peak: a slider and a field. */
function Reach({ name, label, value, most, usual }) {
  const change = ({ target }) => {
    const n = Math.round(Number(target.value));
    if (target.value === "" || !Number.isFinite(n)) return;
    const within = Math.min(Math.max(n, 0), most);
    setQuery({ [name]: within === usual ? null : within }, { replace: true });
  };
  const says = `${label} the peak, in tokens`;
  return html`<label class="control">
    <span class="control-name">${label}</span>
    <input type="range" min="0" max=${most} value=${value} onInput=${change} aria-label=${says} />
    <input type="number" name=${name} min="0" max=${most} value=${value} onChange=${change} aria-label=${says} />
  </label>`;
}
