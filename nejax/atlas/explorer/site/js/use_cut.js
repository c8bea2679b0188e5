// Where the dendrogram is cut: in the address, at most once a frame.

import { useEffect, useRef } from "../vendor/hooks.js";
import { setQuery } from "./route.js";

/** The cut that an address asks for, from 0 to 2 (the range of cosine distances); null: the atlas's own. */
function readCut({ cut }) {
  const value = cut?.trim() ? Number(cut) : NaN;
  return value >= 0 && value <= 2 ? value : null;
}

/** [cut, setCut, latest]: null is the atlas's own. `latest()` is the last one set, whether shown yet or not. */
export function useCut(query) {
  const cut = readCut(query);
  const next = useRef({ cut, frame: null }).current;
  if (next.frame === null) next.cut = cut;
  useEffect(() => () => cancelAnimationFrame(next.frame), []);
  const show = () => {
    next.frame = null;
    setQuery({ cut: next.cut, feature: null }, { replace: true }); // another cut's features have other numbers
  };
  const setCut = (value) => {
    next.cut = value;
    next.frame ??= requestAnimationFrame(show);
  };
  return [cut, setCut, () => next.cut];
}
