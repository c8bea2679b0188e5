// The sheet's colours for what is drawn by script (canvases), also after a change from light to dark.

import { useEffect, useState } from "../vendor/hooks.js";

/**
 * CSS colours of some of the sheet's variables: useThemeColours(["ink"]) is {ink: "#1c1b19"}.
 * The component is drawn again, and gets a new object, when the theme changes.
 */
export function useThemeColours(names) {
  const [colours, setColours] = useState(() => resolved(names));
  useEffect(() => {
    const update = () => setColours(resolved(names));
    const system = matchMedia("(prefers-color-scheme: dark)");
    const chosen = new MutationObserver(update);
    system.addEventListener("change", update);
    chosen.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    update();
    return () => {
      system.removeEventListener("change", update);
      chosen.disconnect();
    };
  }, [names.join()]);
  return colours;
}

/** The parts [r, g, b], 0 to 255, of a colour written as #rrggbb or rgb(r, g, b). */
export function rgb(colour) {
  if (!colour.startsWith("#"))
    return colour
      .match(/[\d.]+/g)
      .slice(0, 3)
      .map(Number);
  const whole = parseInt(colour.slice(1), 16);
  return [whole >> 16, (whole >> 8) & 255, whole & 255];
}

function resolved(names) {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(names.map((name) => [name, colour(style.getPropertyValue(`--${name}`).trim())]));
}

/** Some variables hold the bare parts "0, 114, 178", so that the sheet can mix them with a strength. */
const colour = (value) => (/^\d/.test(value) ? `rgb(${value})` : value);
