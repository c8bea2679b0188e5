"""Measure how fast nejax is, one subject at a time.

Produces `RUN/SUBJECT.json` (the machine, every figure) and `RUN/SUBJECT.txt`, the table printed.

    python experiments/benchmark.py clustering                                    # 6 minutes on two cores
    python experiments/benchmark.py clustering --n_examples=100 --repeats=9       # one size, better medians
    python experiments/benchmark.py explorer                                      # 5 minutes, 1.3 GB of disk
    python experiments/benchmark.py collection                                    # 8 minutes, 8 GB of memory
    python experiments/benchmark.py collection --model=smollm2                    # a gated model
    python experiments/benchmark.py sae --repeats=20                              # 5 minutes
    python experiments/benchmark.py similar --repeats=3                           # 20 minutes, 6 GB of memory
    python experiments/benchmark.py importance --repeats=3                        # 6 minutes
    python experiments/benchmark.py truth                                         # 7 minutes, 3 GB of memory

Subjects: `clustering` (distances, average linkage, components, k-means and spectral clustering, beside SciPy,
scikit-learn and OTT-JAX: the same work, in one process, in turns, with the machine's own limit beside it), `explorer`
(an atlas of GPT-2 small's size, generated: how soon it opens, how fast it answers many clients at once, its memory, its
static site), `collection` (GPT-2 small with random weights: nejax's collection beside the bare forward pass, PyTorch
and TransformerLens, each in its own process, in turns; its growth; a picture of both), `sae` (what the neuron-embedding
loss adds to a step of an SAE's training), `similar` (the features most like each feature: nejax's search, exact and
approximate, beside the products it needs at least and PyNNDescent, with memory and recall), `importance` (activations
of a real run's examples without each earlier token: nejax's shared branches beside whole passes of the model, whose
results must agree). The peers come with `pip install -e '.[benchmark]'`. Figures are in docs/measurements.md.
"""

import json
from pathlib import Path
from typing import Any

from absl import logging

from benchmarks.subject_flags import FLAGS
from nejax.scripts import read_flags, run_script

if __name__ == "__main__":
    read_flags("clustering|collection|explorer|importance|sae|similar|truth")

from benchmarks import clustering, collection, collection_figures, explorer, importance, sae, similar
from benchmarks.timing import machine
from benchmarks.timing import table as table_of_race
from benchmarks.truth import subject as truth
from nejax.pipeline.run.devices import use_all_cores
from nejax.pipeline.run.folders import make_folder

SUBJECTS = {
    "clustering": (clustering.measure, table_of_race),
    "collection": (collection.measure, collection_figures.table),
    "explorer": (explorer.measure, explorer.table),
    "importance": (importance.measure, importance.table),
    "sae": (sae.measure, sae.table),
    "similar": (similar.measure, similar.table),
    "truth": (truth.measure, truth.table),
}
"""How each is measured, in groups of figures, and how a group is shown."""


def main(argv: list[str]) -> None:
    """Measure one subject."""
    subject = argv[1]
    if subject not in ("sae", "truth"):  # these are done on one device, whose products take all cores
        use_all_cores()
    folder = make_folder(Path(FLAGS.run))
    on = machine()
    lines = [
        f"{on['processor']}, {on['cores']} cores, {on['kind']} x {len(on['devices'])}, JAX {on['versions']['jax']}"
    ]
    print(lines[0])
    measure, table = SUBJECTS[subject]
    figures: list[dict[str, Any]] = []
    for group in measure(FLAGS.repeats):
        figures += [figure._asdict() for figure in group]
        lines += ["", *table(group)]
        print("\n".join(["", *table(group)]), flush=True)
        # written after every group: nothing measured is lost
        result = {"machine": on, "repeats": FLAGS.repeats, "figures": figures}
        (folder / f"{subject}.json").write_text(json.dumps(result, indent=1))
        (folder / f"{subject}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"\nWritten to {folder}/{subject}.json and .txt")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    run_script(main)
