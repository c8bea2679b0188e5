// A neuron's examples as features: the atlas's own, or those of its dendrogram cut somewhere else.

import { cut, largestFirst, pairDistances } from "./linkage.js";
import { mergedPeaks } from "./tokens.js";

const N_PEAK_TOKENS = 5;

/** What the methods are called. */
const METHODS = {
  average: "average linkage",
  components: "connected components",
  kmeans: "k-means",
  spectral: "spectral clustering",
};

/** How a neuron's features were found: {name, isCut: whether they are a cut of its dendrogram}. */
export function clusteringMethod(atlas, { height }) {
  const method = atlas.manifest.settings?.clustering ?? "average";
  return { name: METHODS[method] ?? method, isCut: method === "average" && height !== null };
}

/** Whether a neuron has a dendrogram: two examples at least, at finite distances. */
export const hasTree = ({ merges }) => merges.length > 0 && merges.every(([, , height]) => height !== null);

/** The text at an example's peak; null where the site has none. A character of several tokens is with the last. */
export function peakText(neuron, { tokens, position, start }) {
  if (!tokens) return null;
  const texts = tokens.slice(position - start).map((token) => neuron.tokens[token][1]);
  return texts.find((text) => text !== "") ?? "";
}

/**
 * The features of a neuron: {height, labels, features, intra, inter}.
 *
 * height: where its dendrogram is cut; null: as the atlas has them.
 * labels: of its examples. features: [{feature, members, cohesion, central, peaks, origin}], largest first; `central`
 * is null where it is not known, and `origin` says what the feature is made of: {features of the atlas, whole}.
 * intra, inter: mean distance over the pairs of the same and of different features; null where there are none.
 */
export function clusteringAt(neuron, height) {
  const { examples, merges, measures } = neuron;
  const own = examples.map((example) => example.feature);
  if (height === null) {
    const features = membersOf(own).map((members, feature) => ({
      ...described(neuron, members, feature),
      ...kept(neuron.features[feature]),
    }));
    const { intra_cluster_distance: intra, inter_cluster_distance: inter } = measures;
    return { height, labels: own, features, intra, inter };
  }
  const labels = largestFirst(cut(merges, examples.length, height));
  const { within, all } = pairDistances(merges, examples.length, labels);
  const groups = membersOf(labels);
  const features = groups.map((members, feature) => {
    const origin = originOf(neuron, members);
    const cohesion = members.length > 1 ? 1 - within[feature] / pairs(members.length) : null;
    const same = origin.whole && origin.features.length === 1;
    const known = same && kept(neuron.features[origin.features[0]]);
    return { ...described(neuron, members, feature), cohesion, origin, ...known };
  });
  const nWithin = sum(groups.map((members) => pairs(members.length)));
  const nBetween = pairs(examples.length) - nWithin;
  const sumWithin = sum(within);
  return {
    height,
    labels,
    features,
    intra: nWithin ? sumWithin / nWithin : null,
    inter: nBetween ? (all - sumWithin) / nBetween : null,
  };
}

const pairs = (n) => (n * (n - 1)) / 2;
const sum = (values) => values.reduce((total, value) => total + value, 0);

/** The examples of each label, strongest first. */
function membersOf(labels) {
  const members = [];
  labels.forEach((label, i) => (members[label] ??= []).push(i));
  return members;
}

/** What the atlas knows of one of its own features. */
const kept = ({ cohesion, central, peak_tokens }) => ({ cohesion, central, peaks: mergedPeaks(peak_tokens) });

const described = (neuron, members, feature) => ({
  feature,
  members,
  cohesion: null,
  central: null,
  peaks: mostFrequent(members.map((i) => peakText(neuron, neuron.examples[i]))),
  origin: { features: [feature], whole: true },
});

/** [[text, count], ...], ties in favour of the stronger example. */
function mostFrequent(texts) {
  const counts = new Map();
  for (const text of texts) if (text !== null) counts.set(text, (counts.get(text) ?? 0) + 1);
  return mergedPeaks(counts).slice(0, N_PEAK_TOKENS);
}

/** The features of the atlas that some examples are from, and whether all of theirs are among them. */
function originOf({ examples, features }, members) {
  const found = [...new Set(members.map((i) => examples[i].feature))].sort((a, b) => a - b);
  return { features: found, whole: sum(found.map((feature) => features[feature].n_examples)) === members.length };
}
