// Stars and notes of features and neurons. They stay in this browser, by atlas, and can be written to a file.

import { useEffect, useState } from "../vendor/hooks.js";

export const LONGEST_NOTE = 5000; // characters

const key = (atlas) => `nejax:${atlas.fingerprint}`;

/** All of them: {"3/185/0": {note, starred: ISO time}}. */
export function stars(atlas) {
  try {
    return JSON.parse(localStorage.getItem(key(atlas))) ?? {};
  } catch {
    return {};
  }
}

/** Star something, with a note, or (null) remove its star. `id` is "LAYER/NEURON" or "LAYER/NEURON/FEATURE". */
export function setStar(atlas, id, star) {
  const all = stars(atlas);
  if (star) all[id] = star;
  else delete all[id];
  try {
    localStorage.setItem(key(atlas), JSON.stringify(all));
  } catch {
    alert("This browser does not let the page keep stars: its storage is full or turned off.");
  }
  dispatchEvent(new Event("starschange"));
}

/** All stars; the component is drawn again when they change, in another tab too. */
export function useStars(atlas) {
  const [all, setAll] = useState(() => stars(atlas));
  useEffect(() => {
    const update = () => setAll(stars(atlas));
    addEventListener("starschange", update);
    addEventListener("storage", update);
    return () => {
      removeEventListener("starschange", update);
      removeEventListener("storage", update);
    };
  }, [atlas]);
  return all;
}
