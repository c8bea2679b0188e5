// Numbers and names as a person reads them.

import { unitName } from "./sides.js";

const whole = new Intl.NumberFormat("en-US");

/** A number of a measure: "0.543", "1,024", "12.5%"; a dash where there is none. */
export function shown(value, column = {}) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (column.isSign) return value < 0 ? "−" : "+";
  if (column.unit === "%") return `${decimal(100 * value)}%`;
  return column.integer ? whole.format(value) : decimal(value);
}

/** Three significant digits, without an exponent where that is readable. */
export function decimal(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(1).replace("-", "−");
  const digits = Math.max(0, 2 - Math.floor(Math.log10(size)));
  return value.toFixed(Math.min(digits, 6)).replace("-", "−");
}

/** "1 example", "1,204 examples". */
export const counted = (n, noun) => `${whole.format(n)} ${noun}${n === 1 ? "" : "s"}`;

/** "12%". */
export const percent = (share) => (share === null ? "–" : `${Math.round(100 * share)}%`);

/** How often something comes: "1 in 3,400 tokens", or a share where it comes at more than one in a hundred. */
export function often(share) {
  if (share === 0) return "at no token";
  return share > 0.01 ? `${decimal(100 * share)}% of tokens` : `1 in ${whole.format(roughly(1 / share))} tokens`;
}

/** A whole number of which the first two digits are told. */
const roughly = (n) => Number(n.toPrecision(n < 1000 ? 3 : 2));

/** A neuron's name, with its side where it has two: "Layer 3, neuron 17 −". */
export const neuronName = (layer, neuron) => `Layer ${layer}, neuron ${unitName(neuron)}`;

/** A feature's name; people count as the atlas does, from 0. */
export const featureName = (layer, neuron, feature) => `${neuronName(layer, neuron)}, feature ${feature}`;
