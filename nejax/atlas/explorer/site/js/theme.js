// The sheet's colours for what is drawn by script (canvases), also after a change from light to dark.

import { useEffect, useState } from "../vendor/hooks.js";

/** `themeColours` for a component: it is drawn again, and gets a new object, when the theme changes. */
export function useThemeColours(names) {
  const [colours, setColours] = useState(() => themeColours(names));
  useEffect(() => {
    const update = () => setColours(themeColours(names));
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

/** CSS colours of some of the sheet's variables, as they are now: themeColours(["ink"]) is {ink: "rgb(28, 27, 25)"}. */
export function themeColours(names) {
  // A variable's own value is still "light-dark(.., ..)"; only as the colour of something is it settled which.
  const probe = document.body.appendChild(document.createElement("span"));
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const colours = Object.fromEntries(names.map((name) => [name, colour(name)]));
  probe.remove();
  return colours;
}

/** The parts [r, g, b], 0 to 255, of a colour of the theme. */
export const rgb = (colour) => colour.match(/[\d.]+/g).map(Number);

/** A colour of the theme that lets what is below shine through: 0 is not seen, 1 covers all. */
export const translucent = (colour, opacity) => `rgba(${rgb(colour).join(", ")}, ${opacity})`;
