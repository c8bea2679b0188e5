// A field that brings a neuron of the table into view.

import { useState } from "../vendor/hooks.js";
import { useAtlas } from "./context.js";
import { html } from "./html.js";
import { to } from "./route.js";

/** isThere(id): is it in the table? onJump(id) shows it. */
export function Jump({ isThere, onJump }) {
  const atlas = useAtlas();
  const [problem, setProblem] = useState(null);
  const jump = (event) => {
    event.preventDefault();
    const [, layer, neuron] = event.target.elements.neuron.value.match(/^\s*(\d+)\s*[/,: ]\s*(\d+)\s*$/) ?? [];
    const id = Number(layer) * atlas.d_mlp + Number(neuron);
    if (!(layer < atlas.n_layers && neuron < atlas.d_mlp)) {
      setProblem(`Write layer/neuron: 0 to ${atlas.n_layers - 1}, 0 to ${atlas.d_mlp - 1}.`);
    } else if (isThere(id)) {
      setProblem(null);
      onJump(id);
    } else {
      const name = `${Number(layer)}/${Number(neuron)}`;
      setProblem(html`${name} is filtered out. <a href=${to.neuron(Number(layer), Number(neuron))}>Open it</a>`);
    }
  };
  return html`<form class="jump" onSubmit=${jump}>
    <label
      >Go to <input type="text" name="neuron" id="jump" placeholder="3/185" size="7" maxlength="20" autocomplete="off"
    /></label>
    <button>Show</button>
    <span role="status" class="soft">${problem}</span>
  </form>`;
}
