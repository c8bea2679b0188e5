// The address is the state: "#/neuron/3/185?cut=0.41" is the path ["neuron", "3", "185"] with {cut: "0.41"}.

import { useEffect, useState } from "../vendor/hooks.js";

const PAUSE = 320; // ms between changes in place: browsers refuse more than some hundred within ten to thirty seconds
let here = location.hash; // the address; while something is dragged the browser's own follows a little later
let written = 0; // when the browser's was last changed in place
let later = null; // a timer while it is behind

/** Read an address. A broken escape stands for itself. */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return {
    path: path.split("/").filter(Boolean).map(unescaped),
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

/** Write an address. Values that are null, undefined or "" are left out. */
export function href(path, query = {}) {
  const values = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = new URLSearchParams(values.map(([name, value]) => [name, String(value)])).toString();
  const readable = search.replace(/%(3A|2C|2F)/g, unescaped); // ":", "," and "/" need no escape behind a "#"
  return `#/${path.map((part) => encodeURIComponent(part)).join("/")}${readable && `?${readable}`}`;
}

/** Go somewhere. `replace` changes the address in place, for what moves continuously. */
export function go(address, { replace = false } = {}) {
  if (address === here) return;
  if (!replace) write();
  here = address;
  if (!replace) history.pushState(null, "", address);
  else if (performance.now() - written > PAUSE) write();
  else later ??= setTimeout(write, PAUSE);
  dispatchEvent(new Event("routechange"));
}

/** Let the browser's address catch up. */
function write() {
  clearTimeout(later);
  later = null;
  if (here === location.hash) return;
  written = performance.now();
  history.replaceState(null, "", here);
}

/** The browser went elsewhere by itself: a link, the back button, an address typed. */
function arrive() {
  clearTimeout(later);
  later = null;
  here = location.hash;
}

["hashchange", "popstate"].forEach((name) => addEventListener(name, arrive));
["click", "pointerup", "pagehide"].forEach((name) => addEventListener(name, write, true)); // before a link is followed

/** The current address, parsed; the component is drawn again when it changes. */
export function useRoute() {
  const [hash, setHash] = useState(here);
  useEffect(() => {
    const update = () => setHash(here);
    const events = ["hashchange", "popstate", "routechange"];
    events.forEach((name) => addEventListener(name, update));
    update();
    return () => events.forEach((name) => removeEventListener(name, update));
  }, []);
  return parse(hash);
}

/** Change some values of the current address's query, keep the others. */
export function setQuery(changes, options) {
  const { path, query } = parse(here);
  go(href(path, { ...query, ...changes }), options);
}

/** Addresses of the pages. */
export const to = {
  model: (query) => href(["model"], query),
  neurons: (query) => href(["neurons"], query),
  neuron: (layer, neuron, query) => href(["neuron", layer, neuron], query),
  feature: (layer, neuron, feature, query) => href(["feature", layer, neuron, feature], query),
  compare: (a, b, query) => href(["compare"], { a, b, ...query }),
  search: (q, query) => href(["search"], { q, ...query }),
  sequence: (sequence, query) => href(["sequence", sequence], query),
  starred: () => href(["starred"]),
  about: () => href(["about"]),
};

function unescaped(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
