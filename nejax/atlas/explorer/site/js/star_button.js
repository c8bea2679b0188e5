// The star of what is shown, and the note that goes with it.

import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { useAtlas } from "./context.js";
import { html } from "./html.js";
import { LONGEST_NOTE, setStar, stars, useStars } from "./stars.js";

const PAUSE = 300; // milliseconds without a key until a note is kept

/** Keep a note. It stars what it is about; an empty note leaves the star. */
function keepNote(atlas, id, note) {
  const star = stars(atlas)[id];
  if (note !== (star?.note ?? "")) setStar(atlas, id, { note, starred: star?.starred ?? new Date().toISOString() });
}

/** Take a star away; a note is only lost if the person says so. */
export function removeStar(atlas, id) {
  if (!stars(atlas)[id]?.note || confirm("Remove the star? Its note is lost.")) setStar(atlas, id, null);
}

/** Star or unstar; `id` is "LAYER/NEURON" or "LAYER/NEURON/FEATURE". The key s presses it. */
export function StarButton({ id }) {
  const atlas = useAtlas();
  const star = useStars(atlas)[id];
  const toggle = () =>
    star ? removeStar(atlas, id) : setStar(atlas, id, { note: "", starred: new Date().toISOString() });
  return html`<button type="button" class="star" aria-pressed=${Boolean(star)} onClick=${toggle} title="Star (s)">
    ${star ? "★ Starred" : "☆ Star"}
  </button>`;
}

/** A note, kept as it is typed. Give it `key=${id}`. */
export function NoteField({ id, label = "Note", rows = 2 }) {
  const atlas = useAtlas();
  const kept = useStars(atlas)[id]?.note ?? "";
  const [draft, setDraft] = useState(null);
  const waiting = useRef(null);
  const keep = () => {
    if (waiting.current === null) return;
    clearTimeout(waiting.current.timer);
    keepNote(atlas, id, waiting.current.note);
    waiting.current = null;
    setDraft(null);
  };
  const type = ({ target: { value } }) => {
    clearTimeout(waiting.current?.timer);
    waiting.current = { note: value, timer: setTimeout(keep, PAUSE) };
    setDraft(value);
  };
  useEffect(() => {
    addEventListener("pagehide", keep);
    return () => {
      removeEventListener("pagehide", keep);
      keep();
    };
  }, [id]);
  return html`<label class="note">
    <span>${label}</span>
    <textarea
      rows=${rows}
      maxlength=${LONGEST_NOTE}
      placeholder="What is it about?"
      value=${draft ?? kept}
      onInput=${type}
      onBlur=${keep}
    />
  </label>`;
}
