"""Which neurons of an atlas have plainly different features? Chosen by measures, shown with their texts.

Prints the neurons of `nejax.atlas.clearest`, at most one a layer, with their large features: the most frequent tokens
at the peak, and texts around it. The same goes into `RUN/clearest.txt`.

    python experiments/clearest_neurons.py runs/smollm2 --n=10        # the ten of docs/findings.md
    python experiments/clearest_neurons.py runs/demo --n_features=2 --n_examples=10

Seconds, from the atlas alone: neither the model nor the corpus is needed.
"""

from pathlib import Path
from typing import Any

from absl import flags, logging

from nejax.scripts import read_flags, run_script

FLAGS = flags.FLAGS
flags.DEFINE_integer("n", 10, "Neurons.", lower_bound=1)
flags.DEFINE_integer("n_features", 3, "Large features that a neuron must have.", lower_bound=2)
flags.DEFINE_integer("n_examples", 6, "Examples that make a feature large.", lower_bound=1)
flags.DEFINE_integer("n_documents", 3, "Documents that a large feature's examples come from.", lower_bound=1)
flags.DEFINE_float("share", 2 / 3, "Of a neuron's examples, that must be in large features.", 0, 1)
flags.DEFINE_bool("by_layer", True, "No more than one neuron of a layer.")
flags.DEFINE_integer("texts", 4, "Texts shown of each feature.", lower_bound=0)

if __name__ == "__main__":
    read_flags("RUN")

from nejax.atlas.atlas import open_atlas
from nejax.atlas.clearest import clearest, large_features
from nejax.atlas.entries import beginning
from nejax.atlas.neuron import Neuron
from nejax.errors import UserError


def spelled(neuron: Neuron) -> str:
    """A neuron with its large features in text."""
    lines = [
        f"{neuron.name}: silhouette {neuron.silhouette:.2f}, mean distance {neuron.mean_distance:.2f}, "
        f"{neuron.n_examples} examples in {neuron.n_features} features"
    ]
    for feature in large_features(neuron, FLAGS.n_examples, FLAGS.n_documents):
        tokens = ", ".join(f"{text!r} x{count}" for text, count in feature.peak_tokens)
        lines.append(
            f"  feature {feature.index}: {feature.n_examples} examples, cohesion {feature.cohesion:.2f}; {tokens}"
        )
        lines += [f"      {beginning(example.snippet(), 110)}" for example in feature.examples[: FLAGS.texts]]
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Print them."""
    atlas = open_atlas(argv[1])
    rule: dict[str, Any] = {
        name: FLAGS[name].value for name in ("n_features", "n_examples", "n_documents", "share", "by_layer")
    }
    found = clearest(atlas, FLAGS.n, **rule)
    if not found:
        raise UserError(
            f"no neuron of {argv[1]} has {FLAGS.n_features} features of {FLAGS.n_examples} examples from "
            f"{FLAGS.n_documents} documents that hold {FLAGS.share:.0%} of its examples; lower one of these flags"
        )
    text = "\n\n".join(map(spelled, found)) + "\n"
    (Path(argv[1]) / "clearest.txt").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    run_script(main)
