// `html` makes elements of templates: html`<p class="x">${text}</p>`. Text is always shown as text.

import htm from "../vendor/htm.js";
import { h } from "../vendor/preact.js";

export const html = htm.bind(h);
