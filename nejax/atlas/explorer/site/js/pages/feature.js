// A feature of a neuron: its examples as text, what it peaks at, and which features of other neurons are like it.

import { useRef } from "../../vendor/hooks.js";
import { useAtlas } from "../context.js";
import { useShards } from "../data.js";
import { ExampleLegend, ExampleList } from "../example_list.js";
import { readView, ViewControls, viewQuery } from "../example_view.js";
import { FeatureExports } from "../feature_exports.js";
import { FeatureStrip } from "../feature_strip.js";
import { neuronName } from "../format.js";
import { html } from "../html.js";
import { PeakChips } from "../peak_chips.js";
import { missingFeature, placeFrom, placeId } from "../place.js";
import { Problem, Waiting } from "../problem.js";
import { to } from "../route.js";
import { sentence } from "../sentence.js";
import { SimilarFeatures } from "../similar_features.js";
import { NoteField, StarButton } from "../star_button.js";

export function FeaturePage({ ids, query }) {
  const atlas = useAtlas();
  const place = placeFrom(atlas, ids);
  if (place.problem) return html`<${Problem} error=${{ message: place.problem }} />`;
  if (place.feature === null) {
    const message = "A feature’s address is feature/LAYER/NEURON/FEATURE; the last number is missing.";
    return html`<${Problem} error=${{ message }} />`;
  }
  return html`<${Loaded} atlas=${atlas} place=${place} query=${query} />`;
}

/** The feature once its neuron is there; until then the title, over the feature that was shown before. */
function Loaded({ atlas, place, query }) {
  const { data, error, stale } = useShards([`neurons/${place.layer}/${place.neuron}`]);
  const former = useRef(null);
  if (error && !stale) return html`<${Problem} error=${error} />`;
  if (data && !stale) {
    const problem = missingFeature(data[0], place);
    if (problem) return html`<${Problem} error=${{ message: problem }} />`;
    former.current = { neuron: data[0], place };
  }
  const view = readView(atlas, query);
  return html`<${Title} atlas=${atlas} place=${place} view=${view} neuron=${stale ? null : data[0]} />
    ${
      former.current
        ? html`<div class=${stale ? "stale" : ""}>
          <${Feature} atlas=${atlas} ...${former.current} view=${view} query=${query} />
        </div>`
        : html`<${Waiting} />`
    }`;
}

function Title({ atlas, place, view, neuron }) {
  const id = placeId(place);
  return html`<div class="title-row">
    <h1 tabindex="-1">
      <a href=${to.neuron(place.layer, place.neuron)}>${neuronName(place.layer, place.neuron)}</a
      >, feature ${place.feature}
    </h1>
    ${
      neuron &&
      html`<div class="tools">
      <${StarButton} id=${id} />
      <a class="button" href=${to.compare(id)}>Compare</a>
      <${FeatureExports} key=${id} atlas=${atlas} neuron=${neuron} place=${place} view=${view} />
    </div>`
    }
  </div>`;
}

function Feature({ atlas, neuron, place, view, query }) {
  const { feature } = place;
  const { n_examples, peak_tokens } = neuron.features[feature];
  const id = placeId(place);
  return html`<${FeatureStrip} neuron=${neuron} feature=${feature} query=${viewQuery(query)} />
    <p class="lead">${sentence(neuron, feature)}</p>
    <${PeakChips} tokens=${peak_tokens} total=${n_examples} />
    <div class="feature-columns">
      <section aria-labelledby="examples-title">
        <h2 id="examples-title">Examples</h2>
        <${ViewControls} atlas=${atlas} view=${view} />
        <${ExampleLegend} neuron=${neuron} place=${place} view=${view} />
        <${ExampleList} key=${id} neuron=${neuron} place=${place} view=${view} />
      </section>
      <aside>
        <${NoteField} key=${id} id=${id} label=${html`Note <span class="faint">kept in this browser</span>`} />
        <${SimilarFeatures} atlas=${atlas} neuron=${neuron} feature=${feature} query=${viewQuery(query)}
          showsAll=${query.similar === "all"} />
      </aside>
    </div>`;
}
