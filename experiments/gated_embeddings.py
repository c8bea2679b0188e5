"""Which embedding separates the features of gated neurons better: the gate's alone, or gate and up together?

Reads a finished run of a model with gated neurons (any `--embed_by`: the examples are the same) and judges each
embedding on a random sample of its neurons' sides by the measures of `gated.judges`. Prints a table
of the layers' means, and writes every figure as JSON into `RUN/gated_embeddings.json`.

    python experiments/build_atlas.py --model=smollm2 --max_sequences=1000 --run=runs/smollm2 --similar=0
    python experiments/gated_embeddings.py runs/smollm2

Two and a half minutes on two cores; the figures for SmolLM2 are in docs/gated.md.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags, logging

from nejax.scripts import read_flags, run_script

FLAGS = flags.FLAGS
flags.DEFINE_integer("sample", 2000, "Sides of neurons that are judged, spread over the layers.", lower_bound=1)
flags.DEFINE_integer("at_least", 20, "Only sides with so many examples.", lower_bound=2)
flags.DEFINE_integer("seed", 0, "Of the sample.")

if __name__ == "__main__":
    read_flags("RUN")

import numpy as np

from gated.judges import EMBEDDINGS, Judged, Unit, judge
from nejax.errors import UserError
from nejax.models.families.transformer import Transformer
from nejax.pipeline.compare.runs import open_finished
from nejax.pipeline.run.devices import use_all_cores
from nejax.pipeline.stages.inputs import INPUTS, inputs_of_layer
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.tokens import TOKENS


def judge_layer(run: Run, model: Transformer, layer: int, n: int, rng: np.random.Generator) -> dict[str, Judged] | None:
    """Judge a sample of a layer's sides; None if no side has enough examples."""
    shared, inputs = INPUTS.of(run), inputs_of_layer(run, layer)
    sequence, rows = shared.chosen.sequence[layer], shared.input_of[layer]
    enough = np.flatnonzero((sequence >= 0).sum(axis=1) >= FLAGS.at_least)
    if not len(enough):
        return None
    drawn = np.sort(rng.choice(enough, min(n, len(enough)), replace=False))
    neuron = drawn % model.config.d_mlp
    places = np.maximum(sequence[drawn], 0)
    known, row = np.unique(places, return_inverse=True)
    tokens = TOKENS.of(run).take(known).tokens[row.reshape(places.shape), shared.chosen.position[layer][drawn]]
    reference = shared.reference[layer]
    arrays: dict[str, Any] = dict(
        x=inputs[np.maximum(rows[drawn], 0)],
        mask=rows[drawn] >= 0,
        gate=np.asarray(model.input_weights()[layer]).T[neuron].astype(np.float32),
        up=np.asarray(model.up_weights()[layer]).T[neuron].astype(np.float32),
        bias=np.stack([np.asarray(bias[layer])[neuron] for bias in (model.input_bias(), model.up_bias())], axis=1),
        reference=np.broadcast_to(reference, (len(drawn), *reference.shape)),
    )
    return dict(judge(Unit(**arrays), tokens, model.config.activation))


def main(argv: list[str]) -> None:
    """Judge a run."""
    use_all_cores()
    run = open_finished(argv[1])
    two_sided = run.loaded.model
    if two_sided.sides != 2:
        raise UserError(f"{argv[1]} is of {run.loaded.name}, whose neurons are not gated; expected a gated model")
    model, n_layers = two_sided.model, two_sided.config.n_layers
    rng = np.random.default_rng(FLAGS.seed)
    layers: list[dict[str, Any]] = []
    print(
        f"{'layer':>5} {'sides':>5}  "
        + "  ".join(f"{name + ': ' + e:>24}" for name in ("AUC", "grad") for e in EMBEDDINGS)
    )
    for layer in range(n_layers):
        judged = judge_layer(run, model, layer, -(-FLAGS.sample // n_layers), rng)
        if judged is None:
            continue
        means = {e: {f: float(np.nanmean(v)) for f, v in found._asdict().items()} for e, found in judged.items()}
        n = len(judged[EMBEDDINGS[0]].silhouette)
        layers.append({"layer": layer, "sides": n, "means": means})
        columns = [means[e][f] for f in ("token_auc", "gradient_correlation") for e in EMBEDDINGS]
        print(f"{layer:>5} {n:>5}  " + "  ".join(f"{value:>24.3f}" for value in columns))
    if not layers:
        raise UserError(f"no side of a neuron in {argv[1]} has {FLAGS.at_least} examples; lower --at_least")
    weight = np.array([layer["sides"] for layer in layers])
    overall = {
        e: {f: float(np.average([layer["means"][e][f] for layer in layers], weights=weight)) for f in Judged._fields}
        for e in EMBEDDINGS
    }
    print("\nOver all layers:")
    for name in Judged._fields:
        print(f"{name:>22}: " + ", ".join(f"{e} {overall[e][name]:.3f}" for e in EMBEDDINGS))
    said = {"sides": int(weight.sum()), "overall": overall, "layers": layers}
    out = Path(argv[1]) / "gated_embeddings.json"
    out.write_text(json.dumps(said, indent=1))
    print(f"\nWritten to {out}")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    run_script(main)
