// Text as the model reads it: tokens shaded by what the neuron does at each; white space and control characters are
// visible.

import { decimal } from "./format.js";
import { html } from "./html.js";

const PART = "▯"; // a peak at the beginning of a character, which is with the token that ends it
const LONGEST = 120; // characters of a token that are shown; the rest is told

/** What stands for characters that cannot be seen. */
const SIGNS = new Map([
  ["\n", "⏎"],
  ["\r", "␍"],
  ["\t", "⇥"],
  ["\u00a0", "⍽"],
  ["\u200b", "⟨ZWSP⟩"],
  ["\ufeff", "⟨BOM⟩"],
  ["\u2028", "⟨LS⟩"],
  ["\u2029", "⟨PS⟩"],
]);

/** The signs that stand for what cannot be seen. Spaces show as "·" only if asked for. */
export function visible(text, { spaces = false } = {}) {
  const cut = [...text.slice(0, 2 * LONGEST)].slice(0, LONGEST).join("");
  let shown = "";
  for (const character of cut) shown += sign(character, spaces);
  return cut.length < text.length ? `${shown}… (${text.length.toLocaleString("en-US")} characters)` : shown;
}

function sign(character, spaces) {
  const known = SIGNS.get(character);
  if (known) return known;
  if (character === " ") return spaces ? "·" : " ";
  const code = character.codePointAt(0);
  const isJoiner = code === 0x200c || code === 0x200d;
  if (isJoiner) return spaces ? `⟨U+${code.toString(16).toUpperCase()}⟩` : character;
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  if (code === 0x7f) return "␡";
  const isHidden =
    (code >= 0x80 && code < 0xa0) || (code >= 0x200e && code <= 0x200f) || (code >= 0x202a && code <= 0x202e) ||
    (code >= 0x2060 && code <= 0x206f) || (code >= 0xd800 && code <= 0xdfff) || (code >= 0xe0000 && code <= 0xe007f);
  return isHidden ? `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩` : character;
}

/** A peak token as a name: white space around it is left out if anything remains. */
export const peakName = (text) => visible(text.trim() || text, { spaces: true });

/** Peak tokens [[text, count], ...] in which those of one name are one, the most frequent first. */
export function mergedPeaks(peaks) {
  const merged = new Map();
  for (const [text, count] of peaks) {
    const name = peakName(text);
    const [first, n] = merged.get(name) ?? [text, 0];
    merged.set(name, [first, n + count]);
  }
  return [...merged.values()].sort(([, a], [, b]) => b - a);
}

/**
 * A run of tokens.
 *
 * pieces: [{id, text, activation, importance, position}], the last three may be undefined.
 * scale: the activation that has the full colour. shade: "activation", "importance", "both" or "none".
 * peak: index of the piece at the peak. breaks: start a new line after a line break. spaces: show spaces as signs.
 * selected: the position of a piece that is marked. dir: "ltr" keeps the order of tokens whatever their script.
 */
export function Tokens({
  pieces,
  scale,
  shade = "activation",
  peak = -1,
  breaks = false,
  spaces = false,
  selected,
  dir = "auto",
}) {
  return html`<span class="tokens" dir=${dir}>
    ${pieces.map((piece, i) => {
      const lights = shading(piece, scale, shade);
      const newline = breaks && piece.text.includes("\n");
      return html`<span
          key=${i}
          class=${`token${i === peak ? " peak" : ""}${lights.importance > 0 ? " important" : ""}`}
          data-position=${piece.position}
          data-selected=${piece.position !== undefined && piece.position === selected ? "" : undefined}
          style=${{ "--shade-activation": lights.activation, "--shade-importance": lights.importance }}
          title=${title(piece)}
          >${visible(piece.text, { spaces }) || (i === peak ? PART : "")}</span
        >${newline && html`<br />`}`;
    })}
  </span>`;
}

/** How strongly a token is coloured, each from 0 to 1. */
export function shading({ activation, importance }, scale, shade) {
  const part = (value, most) => (value > 0 && most > 0 ? Math.min(value / most, 1).toFixed(3) : 0);
  return {
    activation: shade === "activation" || shade === "both" ? part(activation, scale) : 0,
    importance: shade === "importance" || shade === "both" ? part(importance, 1) : 0,
  };
}

function title({ id, text, activation, importance, position }) {
  const lines = [`${JSON.stringify(text.slice(0, 60))}  token ${id}`];
  if (position !== undefined) lines.push(`position ${position}`);
  if (activation !== undefined) lines.push(`activation ${decimal(activation)}`);
  if (importance !== undefined) lines.push(`importance ${decimal(importance)}`);
  return lines.join("\n");
}

/** What the shades of tokens mean. */
export function TokenLegend({ scale, shade, name = "activation" }) {
  const has = (part) => shade === part || shade === "both";
  return html`<figure class="legend" aria-label="What the shades mean">
    ${has("activation") &&
    html`<figcaption>${name}</figcaption>
      <span>0</span><span class="legend-bar activation" /><span>${decimal(scale)}</span>`}
    ${has("importance") &&
    html`<figcaption>importance</figcaption>
      <span>0</span><span class="legend-bar importance" /><span>1</span>`}
    <span class="token peak">peak</span>
  </figure>`;
}

/** The tokens of an example's window, ready for `Tokens`; [] where the site has no text for it. */
export function windowPieces(neuron, example, { before = Infinity, after = Infinity } = {}) {
  if (!example.tokens) return [];
  const peak = example.position - example.start;
  return example.tokens
    .map((token, i) => ({
      id: neuron.tokens[token][0],
      text: neuron.tokens[token][1],
      activation: example.activations[i] * neuron.activation_step,
      importance: example.importance?.[i] ?? undefined,
      position: example.start + i,
      fromPeak: i - peak,
    }))
    .filter(({ fromPeak }) => fromPeak >= -before && fromPeak <= after);
}
