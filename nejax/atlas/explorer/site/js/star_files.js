// Stars as files: written as JSON or Markdown, read back from JSON.

import { placeAddress, placeId, placeName, placeTyped } from "./place.js";
import { LONGEST_NOTE } from "./stars.js";
import { visible } from "./tokens.js";

const FORMAT = "nejax stars";
const MOST = 100_000;

/** [{id, note, starred, place}] of stars as they are kept, the newest first; names of nothing are left out. */
export function listed(atlas, stars) {
  return Object.entries(stars)
    .map(([id, star]) => ({ id, note: star?.note ?? "", starred: star?.starred ?? "", place: placeTyped(atlas, id) }))
    .filter(({ place }) => !place.problem)
    .sort((a, b) => b.starred.localeCompare(a.starred));
}

/** The stars as a JSON file that `readStars` reads. */
export function starsJson(atlas, list) {
  const stars = list.map(({ id, note, starred }) => ({ id, note, starred }));
  const { model, corpus, fingerprint } = atlas;
  return JSON.stringify({ format: FORMAT, version: 1, model, corpus, fingerprint, stars }, null, 1);
}

/** The stars as a list in Markdown, with links to the pages. */
export function starsMarkdown(atlas, list) {
  const plain = (text) => visible(text.replace(/\s+/g, " ")).replace(/[\\`*_{}[\]<>#|]/g, "\\$&");
  const lines = list.map(({ place, note }) => {
    const link = `[${placeName(place)}](${new URL(placeAddress(place), location.href).href})`;
    return `- ${link}${note ? `: ${note.split("\n").map(plain).join("\n  ")}` : ""}`;
  });
  return [
    `# Starred: ${plain(atlas.model)} on ${plain(atlas.corpus)}`,
    "",
    `Atlas ${atlas.fingerprint}`,
    "",
    ...lines,
    "",
  ].join("\n");
}

/** The stars {id: {note, starred}} in a file's text. What is wrong with it is the message of an Error. */
export function readStars(atlas, text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON.");
  }
  if (file?.format !== FORMAT || file.version !== 1 || !Array.isArray(file.stars)) {
    throw new Error("This file holds no stars; expected one that was saved here as JSON.");
  }
  if (file.fingerprint !== atlas.fingerprint) {
    const of = `${visible(String(file.model))} on ${visible(String(file.corpus))}`;
    throw new Error(`These stars are of another atlas (${of}); its features are not those of this one.`);
  }
  if (file.stars.length > MOST)
    throw new Error(`This file holds ${file.stars.length} stars; expected at most ${MOST}.`);
  return Object.fromEntries(file.stars.map((star, i) => readStar(atlas, star, i)));
}

function readStar(atlas, star, i) {
  const fail = (why) => {
    throw new Error(`Star ${i + 1} of the file: ${why}`);
  };
  if (typeof star?.id !== "string" || !/^\d+\/\d+(\/\d+)?$/.test(star.id))
    fail("its id is not LAYER/NEURON or LAYER/NEURON/FEATURE.");
  const place = placeTyped(atlas, star.id);
  if (place.problem) fail(place.problem);
  const note = star.note ?? "";
  if (typeof note !== "string" || note.length > LONGEST_NOTE)
    fail(`its note is not text of at most ${LONGEST_NOTE} characters.`);
  const time = new Date(typeof star.starred === "string" ? star.starred : NaN);
  return [
    placeId(place),
    { note, starred: Number.isNaN(time.getTime()) ? new Date().toISOString() : time.toISOString() },
  ];
}

/** Two notes of one thing: both are kept unless one holds the other. */
export const joinedNotes = (own, other) =>
  own.includes(other) ? own : other.includes(own) ? other : `${own}\n${other}`.slice(0, LONGEST_NOTE);
