// Sequences, out of the shards that hold sixteen of them each.

const BLOCK = 16;

/** The name of the shard that a sequence is in. */
export const blockOf = (sequence) => `sequences/${Math.floor(sequence / BLOCK)}`;

/**
 * One sequence of its shard: {document, offset, pieces: [{id, text, position}], examples: [{position, layer, neuron,
 * feature, activation}]}. The first piece is BOS: a name, not a text of the corpus.
 */
export function readSequence(block, sequence) {
  const { document, offset, tokens, examples } = block.sequences[sequence - block.first];
  return {
    document,
    offset,
    pieces: tokens.map((token, position) => ({ id: block.tokens[token][0], text: block.tokens[token][1], position })),
    examples: examples.map(([position, layer, neuron, feature, activation]) => ({
      position,
      layer,
      neuron,
      feature,
      activation,
    })),
  };
}

/** Of several examples of a feature the strongest one each, the strongest first. */
export function strongestOfEach(examples) {
  const sorted = [...examples].sort((a, b) => b.activation - a.activation);
  const seen = new Set();
  return sorted.filter(({ layer, neuron, feature }) => {
    const id = `${layer}/${neuron}/${feature}`;
    return !seen.has(id) && seen.add(id);
  });
}
