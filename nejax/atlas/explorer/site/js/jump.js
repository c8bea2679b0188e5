// A field that brings a neuron of the table into view.

import { useState } from "../vendor/hooks.js";
import { useAtlas } from "./context.js";
import { html } from "./html.js";
import { to } from "./route.js";
import { hasSides, numberOf, unitName, unitOf } from "./sides.js";

const PLACE = /^\s*(\d+)\s*[/,: ]\s*(\d+)\s*$/;
const PLACE_OF_SIDE = /^\s*(\d+)\s*[/,: ]\s*(\d+)\s*([-–−+]?)\s*$/; // "3/17−"

/** isThere(id): is it in the table? onJump(id) shows it. */
export function Jump({ isThere, onJump }) {
  const atlas = useAtlas();
  const [problem, setProblem] = useState(null);
  const jump = (event) => {
    event.preventDefault();
    const typed = event.target.elements.neuron.value.match(hasSides() ? PLACE_OF_SIDE : PLACE) ?? [];
    const layer = Number(typed[1]);
    const neuron = unitOf(Number(typed[2]), typed[3]);
    const id = layer * atlas.d_mlp + neuron;
    if (!(layer < atlas.n_layers && neuron < atlas.d_mlp)) {
      const most = `0 to ${atlas.n_layers - 1}, 0 to ${numberOf(atlas.d_mlp - 1)}`;
      setProblem(`Write layer/neuron: ${most}${hasSides() ? "; a − behind it for the negative side" : ""}.`);
    } else if (isThere(id)) {
      setProblem(null);
      onJump(id);
    } else {
      const name = `${layer}/${unitName(neuron)}`;
      setProblem(html`${name} is filtered out. <a href=${to.neuron(layer, neuron)}>Open it</a>`);
    }
  };
  return html`<form class="jump" onSubmit=${jump}>
    <label
      >Go to <input type="text" name="neuron" id="jump" placeholder=${hasSides() ? "3/17−" : "3/185"} size="7"
        maxlength="20" autocomplete="off"
    /></label>
    <button>Show</button>
    <span role="status" class="soft">${problem}</span>
  </form>`;
}
