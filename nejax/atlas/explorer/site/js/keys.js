// Keys that work on every page, and the dialog that lists them.

import { useEffect } from "../vendor/hooks.js";
import { useAtlas } from "./context.js";
import { html } from "./html.js";
import { shard } from "./data.js";
import { go, to } from "./route.js";

export const KEYS = [
  ["← →", "the neighbouring neuron or feature"],
  ["r", "a random neuron"],
  ["/", "search"],
  ["s", "star what is shown"],
  ["?", "this help"],
  ["Esc", "close, or leave a field"],
];

export const openHelp = () => document.getElementById("help").showModal();

/** Go to a random neuron that has examples. */
export async function openRandom(atlas) {
  const sizes = await shard("columns/n_examples").catch(() => []);
  const alive = sizes.flatMap((n, id) => (n > 0 ? [id] : []));
  const id = alive.length ? alive[Math.floor(Math.random() * alive.length)] : 0;
  go(to.neuron(Math.floor(id / atlas.d_mlp), id % atlas.d_mlp));
}

/** The address of the neighbour of a neuron or of a feature, or null. */
async function neighbour(atlas, { path: [page, layer, neuron, feature] }, step) {
  const id = Number(layer) * atlas.d_mlp + Number(neuron);
  if (page === "neuron" || page === "feature") {
    if (page === "feature") {
      const { features } = await shard(`neurons/${layer}/${neuron}`);
      const next = Number(feature) + step;
      if (next >= 0 && next < features.length) return to.feature(layer, neuron, next);
    }
    const next = (id + step + atlas.n_neurons) % atlas.n_neurons;
    return to.neuron(Math.floor(next / atlas.d_mlp), next % atlas.d_mlp);
  }
  if (page === "sequence") {
    const next = Number(layer) + step;
    return next >= 0 && next < atlas.n_sequences ? to.sequence(next) : null;
  }
  return null;
}

/** Is the person writing, or using arrows for something else? */
const isTaken = (event) =>
  event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented ||
  event.target.closest?.("input, textarea, select, dialog[open], [data-arrows]");

export function Keys({ route }) {
  const atlas = useAtlas();
  useEffect(() => {
    const onKey = async (event) => {
      if (event.key === "Escape" && event.target.matches?.("input, textarea")) event.target.blur();
      if (isTaken(event)) return;
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
        const address = await neighbour(atlas, route, event.key === "ArrowLeft" ? -1 : 1).catch(() => null);
        if (address) go(address);
      } else if (event.key === "r") openRandom(atlas);
      else if (event.key === "s") document.querySelector("main .star")?.click();
      else if (event.key === "?") openHelp();
      else if (event.key === "/") {
        event.preventDefault();
        document.getElementById("search").focus();
      }
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  });
  useEffect(close, [route.path.join("/")]); // the back button also works while it is open
  return html`<dialog id="help" aria-labelledby="help-title">
    <h2 id="help-title">Keys</h2>
    <dl>${KEYS.map(([key, what]) => html`<dt><kbd>${key}</kbd></dt><dd>${what}</dd>`)}</dl>
    <p>
      Every page's address holds all that is seen: copy it to share what you see.${" "}
      <a href=${to.about()} onClick=${close}>About the method</a>
    </p>
    <form method="dialog"><button>Close</button></form>
  </dialog>`;
}

const close = () => document.getElementById("help").close();
