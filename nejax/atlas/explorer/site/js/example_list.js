// Examples of a feature or a neuron as text: which, in which order, and one row for each.

import { ExampleRow } from "./example_row.js";
import { counted, decimal } from "./format.js";
import { html } from "./html.js";
import { setQuery, to } from "./route.js";
import { activationName, unitNoun } from "./sides.js";
import { TokenLegend, visible } from "./tokens.js";

/** The examples of a place of a loaded neuron, by their numbers in the neuron, in the order of the view. */
export function orderedExamples(neuron, { feature }, order) {
  const own = neuron.examples.flatMap((example, i) => (feature === null || example.feature === feature ? [i] : []));
  if (feature === null || order !== "central") return own;
  const { central } = neuron.features[feature];
  const cohesion = (i) => (i === central ? Infinity : (neuron.examples[i].cohesion ?? -Infinity));
  return own.sort((a, b) => cohesion(b) - cohesion(a));
}

/** What the shades mean. They reach full colour at the neuron's highest activation, so its features compare. */
export function ExampleLegend({ neuron, place, view }) {
  return html`<div class="example-legend">
    <${TokenLegend} scale=${neuron.measures.max_activation} shade=${view.shade}
      name=${activationName(neuron.neuron)} />
    ${
      view.shade !== "none" &&
      view.shade !== "importance" &&
      html`<span class="faint"
        >full colour: the ${unitNoun()}’s highest activation, ${decimal(neuron.measures.max_activation)}</span
      >`
    }
    ${showsImportance(view) && html`<${WhereKnown} neuron=${neuron} place=${place} view=${view} />`}
  </div>`;
}

const showsImportance = ({ shade }) => shade === "importance" || shade === "both";

/** Importance is measured in some examples only: the others are plain. */
function WhereKnown({ neuron, place, view }) {
  const listed = orderedExamples(neuron, place);
  const n = listed.filter((i) => neuron.examples[i].importance).length;
  if (n === listed.length) return null;
  return html`<span class="faint" data-note="importance"
    >importance is known of a feature’s most central examples only: ${n} of ${listed.length} here${
      n > 0 &&
      place.feature !== null &&
      view.order !== "central" &&
      html`, <button type="button" class="plain" onClick=${() => setQuery({ order: "central" })}>central first</button>`
    }</span
  >`;
}

/** The rows. `limit`: how many at most. `compact`: for a narrow column, without whole sequences. */
export function ExampleList({ neuron, place, view, limit = Infinity, compact = false }) {
  const listed = orderedExamples(neuron, place, view.order);
  const withText = listed.filter((i) => neuron.examples[i].tokens || view.whole.has(i));
  const without = listed.filter((i) => !withText.includes(i));
  const central = place.feature === null ? -1 : neuron.features[place.feature].central;
  return html`<ol class=${`examples${compact ? " compact" : ""}`} data-layout=${view.layout} aria-label="Examples">
      ${withText.slice(0, limit).map(
        (i) =>
          html`<${ExampleRow} key=${i} neuron=${neuron} number=${i} rank=${listed.indexOf(i) + 1} view=${view}
              canBeWhole=${!compact}
              isCentral=${i === central && listed.length > 1} />`,
      )}
    </ol>
    ${without.length > 0 && html`<${WithoutText} neuron=${neuron} numbers=${without} />`}`;
}

/** Examples that a static export of limited size tells without their text. */
function WithoutText({ neuron, numbers }) {
  return html`<details class="without-text">
    <summary>${counted(numbers.length, "example")} ${numbers.length === 1 ? "has" : "have"} no text here</summary>
    <p class="soft">This copy of the atlas was exported with a limited size. The sequences themselves are here:</p>
    <ul>
      ${numbers.map((i) => {
        const { sequence, position, document, activation } = neuron.examples[i];
        return html`<li key=${i}>
          <a href=${to.sequence(sequence, { at: position })}><bdi>${visible(document)}</bdi></a>
          <span class="faint"> sequence ${sequence}, position ${position}, activation ${decimal(activation)}</span>
        </li>`;
      })}
    </ul>
  </details>`;
}
