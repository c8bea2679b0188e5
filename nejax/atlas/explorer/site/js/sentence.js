// A feature in a sentence.

import { counted, decimal, often, percent } from "./format.js";
import { isNegative, unitNoun } from "./sides.js";

/** "16 of 64 examples of this neuron (25%). ..." for a feature of a loaded neuron. */
export function sentence(neuron, feature) {
  const { n_examples, cohesion, max_activation, frequency, coverage } = neuron.features[feature];
  const n = neuron.examples.length;
  const most = neuron.measures.max_activation;
  const like =
    cohesion === null ? "" : ` They have a cohesion of ${decimal(cohesion)}, their mean similarity to each other.`;
  const share = most > 0 ? `, ${percent(max_activation / most)} of the ${unitNoun()}’s maximum` : "";
  const turned = isNegative(neuron.neuron) ? " (× −1)" : "";
  return (
    `${n_examples} of ${counted(n, "example")} of this ${unitNoun()} (${percent(n_examples / n)}).${like} ` +
    `The strongest has activation ${decimal(max_activation)}${turned}${share}.${inCorpus(frequency, coverage)}`
  );
}

/** How often it comes, and how much of what the neuron does that is; nothing where there was no census. */
function inCorpus(frequency, coverage) {
  if (frequency === null) return "";
  if (frequency === 0) return " No token of the census excites it.";
  const part = coverage === null ? "" : ` and makes up ${decimal(100 * coverage)}% of the ${unitNoun()}’s activation`;
  return ` It is excited at ${often(frequency)}${part}.`;
}
