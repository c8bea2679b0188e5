// The bar above every page: where one can go, the search field, a random neuron, light or dark, help.

import { useEffect, useState } from "../vendor/hooks.js";
import { useAtlas } from "./context.js";
import { LONGEST_QUERY } from "./find.js";
import { html } from "./html.js";
import { openHelp, openRandom } from "./keys.js";
import { placeAddress, placeTyped } from "./place.js";
import { go, to } from "./route.js";
import { hasSides, unitName } from "./sides.js";
import { visible } from "./tokens.js";

const LINKS = [
  ["model", "Model", to.model()],
  ["neurons", "Neurons", to.neurons()],
  ["compare", "Compare", to.compare()],
  ["starred", "Starred", to.starred()],
  ["about", "About", to.about()],
];
const PLACE = /^\d+\/\d+\s*[-–−+]?(\/\d+)?$/; // "3/185", "3/185/0", "3/17−", "3/17−/0"
const THEMES = { auto: "as the system", light: "light", dark: "dark" };

export function Header({ route }) {
  const atlas = useAtlas();
  const [name = "model"] = route.path;
  const search = (event) => {
    event.preventDefault();
    const text = event.target.elements.q.value.trim();
    const place = PLACE.test(text) ? placeTyped(atlas, text) : { problem: "a text" };
    if (place.problem) return go(to.search(text));
    event.target.reset();
    go(placeAddress(place));
  };
  useEffect(() => {
    document.title = `${[name, ...named(route.path)].join(" ")} · ${atlas.model} · nejax`;
  });
  return html`<header class="bar">
    <a class="skip" href=${location.hash || "#/model"} onClick=${skip}>Skip to the page</a>
    <a class="brand" href=${to.model()} title=${visible(`${atlas.model} on ${atlas.corpus}`)}
      >nejax <span>${visible(atlas.model)}</span></a>
    <nav aria-label="Pages">
      ${LINKS.map(
        ([page, title, address]) =>
          html`<a href=${address} aria-current=${page === name ? "page" : undefined}>${title}</a>`,
      )}
    </nav>
    <form role="search" onSubmit=${search}>
      <input
        id="search"
        name="q"
        type="search"
        placeholder="Search texts and peaks  /"
        title="A text, or a place such as 3/185 or 3/185/0"
        aria-label="Search texts and peaks, or go to a place"
        maxlength=${LONGEST_QUERY}
        key=${[...route.path, route.query.q, route.query.page].join(" ")}
        defaultValue=${name === "search" ? route.query.q : ""}
      />
    </form>
    <div class="tools">
      <button type="button" onClick=${() => openRandom(atlas)} title="A random neuron (r)">Random</button>
      <${ThemeButton} />
      <button type="button" onClick=${openHelp} title="Keys and help (?)" aria-label="Keys and help">?</button>
    </div>
  </header>`;
}

/** The numbers of an address as a person calls them. */
const named = ([page, ...ids]) =>
  hasSides() && (page === "neuron" || page === "feature")
    ? ids.map((id, i) => (i === 1 && /^\d+$/.test(id) ? unitName(Number(id)) : id))
    : ids;

function skip(event) {
  event.preventDefault();
  document.querySelector("main h1, main h2, main a, main button")?.focus();
}

/** Light, dark, or as the system is; kept in this browser. */
function ThemeButton() {
  const [theme, setTheme] = useState(() => localStorage.getItem("nejax:theme") ?? "auto");
  useEffect(() => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    localStorage.setItem("nejax:theme", theme);
  }, [theme]);
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(theme) + 1) % names.length];
  const sign = { auto: "◐", light: "☀", dark: "☾" }[theme];
  const title = `Colours: ${THEMES[theme]}; change to ${THEMES[next]}`;
  return html`<button type="button" onClick=${() => setTheme(next)} title=${title} aria-label=${title}>
    ${sign}
  </button>`;
}
