"""The stage `inputs`: each neuron's examples, and what the second pass brings back of them."""

from typing import NamedTuple

import numpy as np

from nejax.errors import UserError
from nejax.pipeline.passes.gather import random_positions, revisit
from nejax.pipeline.passes.histogram import activation_histograms, sample_sequences
from nejax.pipeline.passes.select import Chosen, choose_examples
from nejax.pipeline.run.constants import N_REFERENCE
from nejax.pipeline.stages.collect import COLLECT
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.stage import Facts, Stage, layer_store


class Inputs(NamedTuple):
    """The examples of all neurons. The layers' distinct inputs are in stores of their own, see `inputs_of_layer`."""

    chosen: Chosen
    repeats_left_out: np.ndarray
    """[n_layers, d_mlp] int32: kept examples that each neuron lost as repeats."""
    input_of: np.ndarray
    """[n_layers, d_mlp, n_examples] int32: which of its layer's distinct inputs an example has; -1 where empty."""
    n_distinct: np.ndarray
    """[n_layers] int64: distinct inputs of each layer."""
    reference: np.ndarray
    """[n_layers, n_reference, d_model] float32: inputs at random positions, the same positions in every layer."""
    window: np.ndarray
    """[n_layers, d_mlp, n_examples, window] float16: activations around the peak, see `Revisited`."""
    histogram: np.ndarray
    """[n_layers, d_mlp, N_BINS] uint32, over a sample of the corpus, see `Histograms`."""
    lowest_activation: np.ndarray
    """[n_layers, d_mlp] float32: in the sample."""


def inputs_of_layer(run: Run, layer: int) -> np.ndarray:
    """A layer's distinct inputs, [n_distinct, d_model] float32."""
    return run.directory.load(layer_store("inputs", layer))["inputs"]


def _inputs(run: Run) -> tuple[Inputs, Facts]:
    s, shards, best = run.settings, run.sequences, COLLECT.of(run).examples
    chosen, repeats, counts = choose_examples(
        best,
        shards.stream(),
        selection=s.examples.selection,
        n_examples=s.examples.n,
        min_fraction=s.examples.min_fraction,
        max_repeats=s.examples.max_repeats,
    )
    if not counts["examples"]:
        raise UserError("no neuron fires anywhere in this corpus; nothing to cluster. Check the model's weights")
    length, n_peakable = run.sizes
    allowed = run.peak_rule.allowed_in
    reference = random_positions(n_peakable, lambda n: allowed(shards.take(n)), N_REFERENCE, s.seed)
    needed = np.union1d(chosen.sequence[chosen.sequence >= 0], reference[:, 0])
    sample = shards.take(sample_sequences(n_peakable, s.corpus.seq_len, s.seed))
    n_tokens = int(length[needed].sum()) + 2 * int(sample.length.sum())
    with run.bar("inputs", lambda: n_tokens, "tokens") as advance, run.products():
        model, settings = run.loaded.model, {"batch_size": run.batch_size, "mesh": run.mesh, "progress": advance}
        found = revisit(model, shards.take, chosen, reference, seq_len=s.corpus.seq_len, **settings)
        highest = np.asarray(best.activation[..., 0])
        histograms = activation_histograms(model, sample, allowed(sample), highest, **settings)
    for layer, inputs in enumerate(found.inputs):
        run.directory.save(layer_store("inputs", layer), {"inputs": inputs}, {"distinct_inputs": len(inputs)})
    result = Inputs(
        chosen=chosen,
        repeats_left_out=repeats,
        input_of=found.input_of,
        n_distinct=np.array([len(inputs) for inputs in found.inputs]),
        reference=found.reference,
        window=found.window,
        histogram=histograms.counts,
        lowest_activation=histograms.lowest,
    )
    return result, counts | {"sampled_tokens": histograms.n_tokens}


INPUTS = Stage(name="inputs", needs=(COLLECT,), result=Inputs, work=_inputs)
