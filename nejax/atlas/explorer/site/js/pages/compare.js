// Two features or neurons side by side, and what they share.

import { useAtlas } from "../context.js";
import { useShards } from "../data.js";
import { ExampleLegend, ExampleList } from "../example_list.js";
import { readView, ViewControls } from "../example_view.js";
import { html } from "../html.js";
import { NeuronSummary } from "../neuron_summary.js";
import { exampleCount, PeakChips, peakTokens } from "../peak_chips.js";
import { missingFeature, placeAddress, placeId, placeName, placeShort, placeTyped } from "../place.js";
import { PlacePicker } from "../place_picker.js";
import { Waiting } from "../problem.js";
import { go, to } from "../route.js";
import { Shared } from "../shared_by_two.js";
import { sentence } from "../sentence.js";
import { hasSides } from "../sides.js";

const MOST_EXAMPLES = 20;

export function Compare({ query }) {
  const atlas = useAtlas();
  const [a, b] = [query.a, query.b].map((text) => (text ? placeTyped(atlas, text) : null));
  const [first, second] = [useSide(a), useSide(b)];
  const { a: textA, b: textB, ...rest } = query;
  const view = { ...readView(atlas, rest), whole: new Set() };
  const isEmpty = !a && !b;
  return html`<div class="title-row">
      <h1 tabindex="-1">Compare</h1>
      <div class="tools">
        <button type="button" name="swap" disabled=${isEmpty}
          onClick=${() => go(to.compare(textB, textA, rest))}>⇄ Swap</button>
      </div>
    </div>
    ${
      isEmpty &&
      html`<p class="lead">
      Two features or neurons side by side, with what they share. Name each below, such as 3/185/0 for layer 3,
      neuron 185, feature 0, or 3/185 for the whole neuron; what is starred is offered. A feature’s page also compares
      it with each similar feature.${hasSides() && " A − behind the neuron is its negative side: 3/17− or 3/17−/0."}
    </p>`
    }
    ${first.neuron && second.neuron && html`<${Shared} a=${first} b=${second} />`}
    ${(a || b) && html`<${ViewControls} atlas=${atlas} view=${view} />`}
    <div class="compare-sides">
      <${Side} name="a" text=${textA} side=${first} other=${second} view=${view} />
      <${Side} name="b" text=${textB} side=${second} other=${first} view=${view} />
    </div>`;
}

/** What is known of one side: {place, neuron: loaded, or null, problem}. */
function useSide(asked) {
  const place = asked && !asked.problem ? asked : null;
  const { data, error, stale } = useShards(place ? [`neurons/${place.layer}/${place.neuron}`] : []);
  if (!place || stale || !(data || error)) return { place, neuron: null, problem: asked?.problem ?? "" };
  if (error) return { place, neuron: null, problem: error.message };
  const problem = missingFeature(data[0], place);
  return { place, neuron: problem ? null : data[0], problem };
}

function Side({ name, text, side, other, view }) {
  const { place, neuron, problem } = side;
  return html`<section data-side=${name} aria-label=${`Side ${name.toUpperCase()}${place ? `: ${placeName(place)}` : ""}`}>
    <${PlacePicker} name=${name} text=${place && hasSides() ? placeShort(place) : text} other=${other} />
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    ${!problem && place && !neuron && html`<${Waiting} />`}
    ${
      neuron &&
      (place.feature === null
        ? html`<${NeuronSummary} layer=${place.layer} neuron=${place.neuron} />`
        : html`<${FeatureSide} neuron=${neuron} place=${place} />`)
    }
    ${
      neuron &&
      neuron.examples.length > 0 &&
      html`<${ExampleLegend} neuron=${neuron} place=${place} view=${view} />
      <${ExampleList} key=${placeId(place)} neuron=${neuron} place=${place} view=${view}
        limit=${MOST_EXAMPLES} compact />
      ${
        exampleCount(neuron, place) > MOST_EXAMPLES &&
        html`<p><a href=${placeAddress(place)}>All ${exampleCount(neuron, place)} examples</a></p>`
      }`
    }
  </section>`;
}

function FeatureSide({ neuron, place }) {
  return html`<h2><a href=${placeAddress(place)}>${placeName(place)}</a></h2>
    <p class="soft">${sentence(neuron, place.feature)}</p>
    <${PeakChips} tokens=${peakTokens(neuron, place)} total=${exampleCount(neuron, place)} />`;
}
