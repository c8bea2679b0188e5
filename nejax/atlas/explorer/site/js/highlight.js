// What is pointed at. Whatever stands for an example or a feature says so (data-example, data-feature) and lights up
// with it.

import { useState } from "../vendor/hooks.js";

const NOTHING = { example: null, feature: null };

/**
 * [highlight, handlers]: the handlers are for the element around everything.
 *
 * example: that is pointed at. feature: that one, or the one it is of. focus: the feature that all others step back
 * for, which without being pointed at is the pinned one. point(example): as if it were pointed at.
 */
export function useHighlight(labels, pinned) {
  const [hover, setHover] = useState(NOTHING);
  const set = (next) => setHover((now) => (now.example === next.example && now.feature === next.feature ? now : next));
  const over = ({ target }) => {
    const read = (name) => {
      const value = target.closest?.(`[data-${name}]`)?.dataset[name];
      return value === undefined ? null : Number(value);
    };
    set({ example: read("example"), feature: read("feature") });
  };
  const out = ({ currentTarget, relatedTarget }) => {
    if (!relatedTarget || !currentTarget.contains(relatedTarget)) set(NOTHING);
  };
  const { example } = hover;
  const feature = example !== null ? (labels[example] ?? null) : hover.feature;
  return [
    { example, feature, focus: hover.feature ?? pinned, point: (i) => set({ example: i, feature: null }) },
    { onPointerOver: over, onPointerLeave: () => set(NOTHING), onFocusIn: over, onFocusOut: out },
  ];
}
