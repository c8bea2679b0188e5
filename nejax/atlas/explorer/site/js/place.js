// Which neuron or feature is meant: {layer, neuron, feature}, where feature is null for a whole neuron.

import { featureName, neuronName } from "./format.js";
import { to } from "./route.js";
import { hasSides, numberOf, signOf, unitOf } from "./sides.js";

const NUMBER = /^\d{1,9}$/;

/** A place from the parts of an address, or {problem}: what is wrong with them, in words. */
export function placeFrom(atlas, parts) {
  const bad = parts.find((part) => !NUMBER.test(part));
  if (bad !== undefined) return { problem: `“${bad.slice(0, 40)}” is no number of a layer, neuron or feature.` };
  if (parts.length < 2 || parts.length > 3) {
    return { problem: "A neuron is named LAYER/NEURON and a feature LAYER/NEURON/FEATURE, such as 3/185/0." };
  }
  const [layer, neuron, feature = null] = parts.map(Number);
  if (layer >= atlas.n_layers)
    return { problem: `There is no layer ${layer}; the layers are 0 to ${atlas.n_layers - 1}.` };
  if (neuron >= atlas.d_mlp) {
    const most = hasSides() ? `${numberOf(atlas.d_mlp - 1)}, each with a side + and a side −` : atlas.d_mlp - 1;
    return { problem: `There is no neuron ${neuron} in a layer; the neurons are 0 to ${most}.` };
  }
  return { layer, neuron, feature };
}

/** A place as a person types it: "3/185/0", "3 185", "L3 N185", "3/17−", or a name as the pages show it. */
export function placeTyped(atlas, text) {
  const parts = text.match(/\d+/g) ?? [text.trim()];
  // A sign belongs to the neuron unless a number stands right behind it: "3-17-0" only has separators.
  const [, sign = ""] = text.match(/^\D*\d+\D+\d+(\s*(?:[-–−](?!\d)|[^\d/]*\bnegative\b))/i) ?? [];
  return placeFrom(
    atlas,
    parts.map((part, i) => (i === 1 && NUMBER.test(part) ? String(unitOf(Number(part), sign)) : part)),
  );
}

/** What is wrong with a feature's number in a neuron that is loaded; "" if there is such a feature. */
export function missingFeature({ features }, { layer, neuron, feature }) {
  if (feature === null || feature < features.length) return "";
  const name = neuronName(layer, neuron);
  return features.length
    ? `${name} has no feature ${feature}; its features are 0 to ${features.length - 1}.`
    : `${name} has no features: no token of the corpus excites it.`;
}

/** "3/185/0" or "3/185": for addresses, and to know a place again. */
export const placeId = ({ layer, neuron, feature }) => [layer, neuron, feature].filter((n) => n !== null).join("/");

/** The same for a person: "3/17−/0" where neurons have two sides. */
export const placeShort = ({ layer, neuron, feature }) =>
  [layer, `${numberOf(neuron)}${signOf(neuron)}`, feature].filter((part) => part !== null).join("/");

/** "Layer 3, neuron 185, feature 0". */
export const placeName = ({ layer, neuron, feature }) =>
  feature === null ? neuronName(layer, neuron) : featureName(layer, neuron, feature);

/** The address of a place's page. */
export const placeAddress = ({ layer, neuron, feature }, query) =>
  feature === null ? to.neuron(layer, neuron, query) : to.feature(layer, neuron, feature, query);
