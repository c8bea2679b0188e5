// A neuron in short: its name, a sentence, its features.

import { useMemo } from "../vendor/hooks.js";
import { clusteringAt } from "./clustering.js";
import { useAtlas } from "./context.js";
import { useShards } from "./data.js";
import { FeatureCards } from "./feature_cards.js";
import { counted, neuronName, shown } from "./format.js";
import { html } from "./html.js";
import { Problem, Waiting } from "./problem.js";
import { to } from "./route.js";

/** "64 examples in 9 features; fires at 2.1% of tokens; mean distance 0.71." */
export function neuronSentence(atlas, { measures, features, examples }) {
  const said = (name) => shown(measures[name], atlas.columns.find((column) => column.name === name));
  if (!examples.length) return `Dead: no examples; it fires at ${said("firing_rate")} of tokens.`;
  const distance = measures.mean_distance === null ? "" : `; mean distance ${said("mean_distance")}`;
  const split = `${counted(examples.length, "example")} in ${counted(features.length, "feature")}`;
  return `${split}; fires at ${said("firing_rate")} of tokens${distance}.`;
}

/** A neuron's name as a link, the sentence, and compact cards of its features. */
export function NeuronSummary({ layer, neuron }) {
  const atlas = useAtlas();
  const { data, error, stale } = useShards([`neurons/${layer}/${neuron}`]);
  const found = data?.[0];
  const clustering = useMemo(() => found && clusteringAt(found, null), [found]);
  if (error && !stale) return html`<${Problem} error=${error} />`;
  if (!found) return html`<${Waiting} />`;
  const here = { layer: found.layer, neuron: found.neuron };
  return html`<section
    class=${`neuron-summary${stale ? " stale" : ""}`} aria-label=${neuronName(here.layer, here.neuron)}>
    <h2><a href=${to.neuron(here.layer, here.neuron)}>${neuronName(here.layer, here.neuron)}</a></h2>
    <p class="lead">${neuronSentence(atlas, found)}</p>
    ${found.examples.length > 0 &&
    html`<${FeatureCards} neuron=${found} clustering=${clustering} scale=${found.examples[0].activation} compact />`}
  </section>`;
}
