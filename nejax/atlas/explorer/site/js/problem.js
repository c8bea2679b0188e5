// What a page shows when it cannot show what was asked for, and while it waits.

import { html } from "./html.js";

/** What went wrong, and a way on. */
export function Problem({ error }) {
  return html`<section class="problem" role="alert">
    <h1 tabindex="-1">This cannot be shown</h1>
    <p>${error.message}</p>
    <p><a href="#/model">To the model</a></p>
  </section>`;
}

/** While data is on its way. */
export const Waiting = () => html`<p class="loading" role="status">Loading …</p>`;
