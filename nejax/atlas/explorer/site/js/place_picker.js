// A field in which a person names a neuron or a feature; what is starred, or similar to the other side, is offered.

import { useState } from "../vendor/hooks.js";
import { useAtlas } from "./context.js";
import { html } from "./html.js";
import { placeId, placeName, placeShort, placeTyped } from "./place.js";
import { setQuery } from "./route.js";
import { hasSides } from "./sides.js";
import { useStars } from "./stars.js";

/** Sets the value `name` of the address. `other`: the other side, {place, neuron}. */
export function PlacePicker({ name, text = "", other }) {
  const atlas = useAtlas();
  const [problem, setProblem] = useState("");
  const offered = offers(atlas, useStars(atlas), other);
  const choose = (event) => {
    event.preventDefault();
    const typed = event.target.elements[name].value.trim();
    const place = typed ? placeTyped(atlas, typed) : null;
    setProblem(place?.problem ?? "");
    if (!place?.problem) setQuery({ [name]: place && placeId(place) });
  };
  return html`<form class="place-picker" onSubmit=${choose}>
      <label>${name.toUpperCase()} <input key=${text} name=${name} type="text" defaultValue=${text}
        list=${`offered-${name}`} size="18"
        placeholder=${hasSides() ? "3/17−/0 or 3/17−" : "3/185/0 or 3/185"}
        autocomplete="off" spellcheck="false" /></label>
      <datalist id=${`offered-${name}`}>
        ${offered.map(([id, why]) => html`<option key=${id} value=${id}>${why}</option>`)}
      </datalist>
      <button>Show</button>
    </form>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}`;
}

/** [id, why it is offered] of what may be meant, each once. */
function offers(atlas, stars, { place, neuron }) {
  const similar = neuron && place.feature !== null ? neuron.features[place.feature].similar : [];
  const listed = new Map(
    similar.map(([layer, index, feature, similarity]) => [
      placeShort({ layer, neuron: index, feature }),
      `similarity ${similarity.toFixed(2)} to ${placeShort(place)}`,
    ]),
  );
  for (const id of Object.keys(stars)) {
    const starred = placeTyped(atlas, id);
    if (!starred.problem) listed.set(placeShort(starred), `starred: ${placeName(starred)}`);
  }
  return [...listed];
}
