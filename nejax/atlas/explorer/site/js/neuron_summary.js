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
import { isNegative } from "./sides.js";

/** "64 examples in 9 features; fires at 2.1% of tokens; mean distance 0.71." */
export function neuronSentence(atlas, { measures, features, examples }) {
  const said = (name) => shown(measures[name], atlas.columns.find((column) => column.name === name));
  if (!examples.length) return `Dead: no examples; it fires at ${said("firing_rate")} of tokens.`;
  const distance = measures.mean_distance === null ? "" : `; mean distance ${said("mean_distance")}`;
  const split = `${counted(examples.length, "example")} in ${counted(features.length, "feature")}`;
  return `${split}; fires at ${said("firing_rate")} of tokens${distance}.`;
}

/** What else must be known of it: that its activations are turned round, what was left out; "" for nothing. */
export function neuronNotes(atlas, { neuron, measures }) {
  const { repeats_left_out: left } = measures;
  const { max_repeats: most } = atlas.manifest.settings;
  const negative =
    "The negative side: activations are × −1, so they are high where the neuron’s own activation is lowest.";
  const repeats =
    `${counted(left, "near-duplicate")} left out: at most ${counted(most, "example")} with the same eight tokens ` +
    `up to the peak ${most === 1 ? "is" : "are"} kept.`;
  return [isNegative(neuron) && negative, left > 0 && repeats].filter(Boolean).join(" ");
}

/** The notes, quietly. */
export function Notes({ atlas, neuron }) {
  const notes = neuronNotes(atlas, neuron);
  return notes && html`<p class="soft neuron-notes">${notes}</p>`;
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
    <${Notes} atlas=${atlas} neuron=${found} />
    ${found.examples.length > 0 &&
    html`<${FeatureCards} neuron=${found} clustering=${clustering} scale=${found.examples[0].activation} compact />`}
  </section>`;
}
