// Neurons with two sides: of a layer's units the first half are the neurons' positive sides, the others, in the same
// order, their negative ones. Addresses and shards name units; a person reads and writes "17 +" and "17 −".

let perLayer = Infinity; // neurons in a layer, where they have two sides

/** Before anything is named: what the neurons of this atlas are. */
export function setSides({ sides, d_mlp }) {
  perLayer = sides === 2 ? d_mlp / 2 : Infinity;
}

export const hasSides = () => perLayer < Infinity;

/** What units are: "neuron", or "side". */
export const unitNoun = () => (hasSides() ? "side" : "neuron");

export const isNegative = (unit) => unit >= perLayer;

/** The neuron's index in its layer. */
export const numberOf = (unit) => unit % perLayer;

/** "positive", "negative", or "" where neurons have one side. */
export const sideOf = (unit) => (hasSides() ? (isNegative(unit) ? "negative" : "positive") : "");

/** "+", "−" or "". */
export const signOf = (unit) => (hasSides() ? (isNegative(unit) ? "−" : "+") : "");

/** The unit of the other side of the same neuron. */
export const otherSide = (unit) => (isNegative(unit) ? unit - perLayer : unit + perLayer);

/** The unit that a person means by a number and what stands behind it; a unit's own number is taken as it is. */
export const unitOf = (number, sign = "") =>
  hasSides() && /[-–−]|negative/i.test(sign) && number < perLayer ? number + perLayer : number;

/** "17 −", or "17" where neurons have one side. */
export const unitName = (unit) => [numberOf(unit), signOf(unit)].filter((part) => part !== "").join(" ");

/** What is told of a unit's activations: those of negative sides are turned round. */
export const activationName = (unit) => (isNegative(unit) ? "activation × −1" : "activation");
