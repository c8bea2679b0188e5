// How this atlas was made, from its manifest, in words.

import { useAtlas } from "../context.js";
import { counted, decimal, percent } from "../format.js";
import { html } from "../html.js";
import { hasSides, unitNoun } from "../sides.js";
import { visible } from "../tokens.js";

/** The facts of this atlas, as a list. */
export function HowMade() {
  const atlas = useAtlas();
  const { settings, versions, stages } = atlas.manifest;
  const rows = [
    ["Model", model(atlas, settings)],
    ["Corpus", corpus(atlas, stages?.tokens)],
    ["Left out", lines([...atlas.warnings, ...atlas.left_out])],
    ["Examples", selection(settings)],
    ["Near-duplicates", repeats(settings, stages?.inputs)],
    [
      "Features",
      `${counted(atlas.n_features, "feature")} in ${counted(atlas.n_examples, "example")}: ${clustering(settings)}`,
    ],
    ["Importance", importance(settings)],
    ["Census", census(stages?.census)],
    [`Dead ${unitNoun()}s`, deadNeurons(stages?.inputs)],
    ["Made with", `nejax ${versions?.nejax}, JAX ${versions?.jax} on ${versions?.backend}, in ${settings.precision}`],
    ["This site", leftOut(atlas)],
  ];
  return html`<dl id="made">
    ${rows.map(([name, value]) => value && html`<dt>${name}</dt><dd>${Array.isArray(value) ? value : visibleLine(value)}</dd>`)}
  </dl>`;
}

const WEIGHTS = {
  native: "with the input weights as they are in the model",
  folded: "with LayerNorm's scale folded into the input weights and these centred, as the paper read GPT-2",
};

const model = (atlas, { input_weights }) =>
  `${atlas.model}: ${counted(atlas.n_layers, "layer")} of ${neurons(atlas)}, ${WEIGHTS[input_weights]}`;

const neurons = ({ d_mlp }) =>
  hasSides()
    ? `${counted(d_mlp / 2, "gated neuron")}, each with a positive and a negative side`
    : counted(d_mlp, "neuron");

const leftOut = ({ examples_per_feature: n }) =>
  n !== null && `to keep it small, it holds the text of ${counted(n, "example")} a feature; all are counted and mapped`;

// A name or a path may be longer than what `visible` shows of one token.
const visibleLine = (text) => text.match(/[^]{1,100}/gu).map((part) => visible(part)).join("");

const lines = (all) => all.length > 0 && all.map((line) => html`<div>${visibleLine(line)}</div>`);

function corpus({ corpus, n_sequences, seq_len }, tokens) {
  const read = tokens ? `${counted(tokens.documents_read, "document")}, ` : "";
  const sequences = `${counted(n_sequences, "sequence")} of up to ${counted(seq_len, "token")}`;
  return `${corpus}: ${read}${sequences}`;
}

function selection({ examples, keep, selection, min_fraction }) {
  const which = {
    fraction: `with an activation of at least ${percent(min_fraction)} of its maximum`,
    top: "the strongest",
    quantiles: "evenly over their ranks",
  }[selection];
  return `up to ${examples} of a neuron's ${keep} strongest sequences${which ? `, ${which}` : ""}`;
}

function repeats({ max_repeats }, inputs) {
  const left = inputs ? `; ${counted(inputs.repeats_left_out, "other")} left out` : "";
  return `at most ${counted(max_repeats, "example")} with the same eight tokens up to the peak${left}`;
}

const ABLATIONS = {
  padding: "padding in its place",
  deletion: "the text without it",
  mean: "the mean input in its place",
  gradient: "an estimate, from the gradient, of padding in its place",
};

const importance = ({ importance: isThere, importance_examples: n, importance_window: window, importance_by: by }) =>
  isThere &&
  `of the ${counted(window, "token")} before the peak, in up to ${counted(n, "example")} a feature; what stands for ` +
    `a token that is ablated: ${ABLATIONS[by] ?? by}`;

const census = (facts) => facts && `${counted(facts.tokens, "token")} of ${counted(facts.sequences, "sequence")}`;

const deadNeurons = (inputs) => inputs && `${counted(inputs.dead_neurons, unitNoun())} without an example`;

function clustering({ clustering, height, n_clusters, max_clusters }) {
  const own =
    "each neuron at its own height, the 5% quantile of the distances of random inputs seen through its weights";
  const cut = typeof height === "number" ? `at the height ${decimal(height)}` : own;
  const number = n_clusters ? counted(n_clusters, "cluster") : `up to ${counted(max_clusters, "cluster")}`;
  const said = {
    average: `average linkage, cut ${cut}`,
    components: `connected components, cut ${cut}`,
    kmeans: `spherical k-means, ${number}`,
    spectral: `spectral clustering, ${number}`,
  };
  return said[clustering] ?? clustering;
}
