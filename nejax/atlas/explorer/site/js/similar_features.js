// Features of other neurons that read nearly the same as a feature.

import { html } from "./html.js";
import { LazyPeaks } from "./peak_chips.js";
import { placeId, placeName, placeShort } from "./place.js";
import { setQuery, to } from "./route.js";

const FEW = 8;

/** The list, a few first. `query` is kept when one is opened. */
export function SimilarFeatures({ atlas, neuron, feature, showsAll, query }) {
  const { similar } = neuron.features[feature];
  const some = showsAll ? similar : similar.slice(0, FEW);
  return html`<section class="similar" aria-labelledby="similar-title">
    <h2 id="similar-title">Similar features</h2>
    <p class="faint">${explanation(atlas, similar)}</p>
    <ol>
      ${some.map(
        (found) =>
          html`<${Similar} key=${found.slice(0, 3).join()} found=${found} query=${query}
            own=${placeId({ layer: neuron.layer, neuron: neuron.neuron, feature })} />`,
      )}
    </ol>
    ${
      similar.length > FEW &&
      html`<button type="button" onClick=${() => setQuery({ similar: showsAll ? null : "all" })}>
      ${showsAll ? "Show fewer" : `Show all ${similar.length}`}
    </button>`
    }
  </section>`;
}

function explanation({ n_similar: n, manifest }, similar) {
  if (!n) return "This atlas was built without similar features.";
  if (manifest.settings.similar_by === "mean") {
    return similar.length
      ? "Of other neurons: the cosine of what the two read on average over their examples."
      : "None: no feature of another neuron reads nearly the same on average over its examples.";
  }
  if (!similar.length) return "None: no feature of another neuron reads nearly the same at its central example.";
  return "Of other neurons: the cosine of what the two read at their central examples. 1: the very same input.";
}

function Similar({ found: [layer, neuron, feature, similarity, sharesExample], query, own }) {
  const place = { layer, neuron, feature };
  return html`<li data-similar=${placeId(place)}>
    <span class="similar-value" style=${{ "--share": `${Math.max(0, 100 * similarity)}%` }}
      >${similarity.toFixed(2)}</span>
    <a class="similar-name" href=${to.feature(layer, neuron, feature, query)} title=${placeName(place)}
      >${placeShort(place)}</a>
    <a class="similar-compare" href=${to.compare(own, placeId(place))}
      aria-label=${`Compare with ${placeShort(place)}`}>compare</a>
    <${LazyPeaks} place=${place} limit=${3} />
    ${
      sharesExample &&
      html`<span class="badge" title="Both have the same token of the same text as their central example"
        >shares its example</span>`
    }
  </li>`;
}
