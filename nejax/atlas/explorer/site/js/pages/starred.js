// What is starred in this atlas, with notes; written to files and read back.

import { useState } from "../../vendor/hooks.js";
import { useAtlas } from "../context.js";
import { download } from "../files.js";
import { counted } from "../format.js";
import { html } from "../html.js";
import { LazyPeaks } from "../peak_chips.js";
import { placeAddress, placeName } from "../place.js";
import { to } from "../route.js";
import { NoteField, removeStar } from "../star_button.js";
import { joinedNotes, listed, readStars, starsJson, starsMarkdown } from "../star_files.js";
import { setStar, stars, useStars } from "../stars.js";

export function Starred() {
  const atlas = useAtlas();
  const list = listed(atlas, useStars(atlas));
  const name = `stars-${atlas.model}`.replace(/[^A-Za-z0-9]+/g, "-");
  return html`<div class="title-row">
      <h1 tabindex="-1">Starred</h1>
      <div class="tools">
        <button type="button" name="export-json" disabled=${!list.length}
          onClick=${() => download(`${name}.json`, starsJson(atlas, list), "application/json")}>JSON</button>
        <button type="button" name="export-markdown" disabled=${!list.length}
          onClick=${() => download(`${name}.md`, starsMarkdown(atlas, list), "text/markdown")}>Markdown</button>
        <${ImportButton} atlas=${atlas} />
      </div>
    </div>
    <p class="lead">
      ${
        list.length
          ? `${counted(list.length, "star")} of this atlas, kept in this browser; save them as JSON to share them.`
          : html`Nothing is starred yet. Press <kbd>s</kbd> on the page of a neuron or of a feature, or its star; a note
            stars it too. Stars stay in
            this browser; they can be saved as a file and read back here.`
      }
    </p>
    <ul class="starred">
      ${list.map((star) => html`<${Star} key=${star.id} atlas=${atlas} star=${star} />`)}
    </ul>`;
}

function Star({ atlas, star: { id, place, starred } }) {
  const name = placeName(place);
  return html`<li data-star=${id}>
    <div class="starred-name">
      <a href=${placeAddress(place)}>${name}</a>
      <${LazyPeaks} place=${place} limit=${5} />
      <span class="faint starred-tools">
        <time datetime=${starred}>${starred.slice(0, 10)}</time>
        <a href=${to.compare(id)} aria-label=${`Compare ${name}`}>compare</a>
      </span>
    </div>
    <${NoteField} id=${id} label=${html`<span class="visually-hidden">Note on ${name}</span>`} rows=${2} />
    <button type="button" onClick=${() => removeStar(atlas, id)}
      aria-label=${`Remove the star of ${name}`}>Remove</button>
  </li>`;
}

/** Read stars from a file; they join those that are here. */
function ImportButton({ atlas }) {
  const [said, setSaid] = useState({ text: "", isProblem: false });
  const read = async ({ target }) => {
    const [file] = target.files;
    if (!file) return;
    try {
      const found = readStars(atlas, await file.text());
      const own = stars(atlas);
      for (const [id, star] of Object.entries(found)) {
        setStar(atlas, id, own[id] ? { ...own[id], note: joinedNotes(own[id].note, star.note) } : star);
      }
      setSaid({ text: `Read ${counted(Object.keys(found).length, "star")}.`, isProblem: false });
    } catch (error) {
      setSaid({ text: error.message, isProblem: true });
    }
    target.value = "";
  };
  return html`<label class="button import">
      Import <input type="file" class="visually-hidden" accept=".json,application/json"
        aria-label="Import stars from a JSON file" onChange=${read} />
    </label>
    ${said.text &&
    html`<p class=${said.isProblem ? "problem" : "soft"} role=${said.isProblem ? "alert" : "status"}
      >${said.text}</p>`}`;
}
