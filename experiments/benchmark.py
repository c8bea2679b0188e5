"""Time nejax beside its peers: the same work, in one process, in turns, with the machine's own limit beside it.

Produces `RUN/SUBJECT.json` (the machine, every median with its spread) and `RUN/SUBJECT.txt`, the table printed.

    python experiments/benchmark.py clustering                                    # 6 minutes on two cores
    python experiments/benchmark.py clustering --n_examples=100 --repeats=9       # one size, better medians

Subjects: `clustering` (distances, average linkage, components, k-means and spectral clustering, beside SciPy,
scikit-learn and OTT-JAX). The peers come with `pip install -e '.[benchmark]'`. Figures are in BUILD_NOTES.md.
"""

import json
from pathlib import Path

from absl import flags, logging

from benchmarks import clustering
from benchmarks.timing import Figures, machine
from nejax.errors import UserError, run_script
from nejax.pipeline.devices import use_all_cores

SUBJECTS = {"clustering": clustering.measure}

FLAGS = flags.FLAGS
flags.DEFINE_string("run", "runs/benchmark", "Where the results are written.")
flags.DEFINE_integer("repeats", 5, "Rounds; a figure is the median over them.", lower_bound=1)

HEAD = f"{'':<38}{'neurons':>8}{'µs a neuron':>13}{'fastest':>10}{'slowest':>10}{'peer / nejax':>14}"


def main(argv: list[str]) -> None:
    """Measure one subject."""
    if len(argv) != 2 or argv[1] not in SUBJECTS:
        raise UserError(f"benchmark.py {' '.join(argv[1:])}: expected one subject of {', '.join(SUBJECTS)}")
    subject = argv[1]
    use_all_cores()
    folder = Path(FLAGS.run)
    folder.mkdir(parents=True, exist_ok=True)
    on = machine()
    lines = [
        f"{on['processor']}, {on['cores']} cores, {on['kind']} x {len(on['devices'])}, JAX {on['versions']['jax']}"
    ]
    print(lines[0])
    figures: list[Figures] = []
    for group in SUBJECTS[subject](FLAGS.repeats):
        figures += group
        lines += ["", *_table(group)]
        print("\n".join(["", *_table(group)]), flush=True)
        # written after every group: nothing measured is lost
        result = {"machine": on, "repeats": FLAGS.repeats, "figures": [f._asdict() for f in figures]}
        (folder / f"{subject}.json").write_text(json.dumps(result, indent=1))
        (folder / f"{subject}.txt").write_text("\n".join(lines) + "\n")
    print(f"\nWritten to {folder}/{subject}.json and .txt")


def _table(group: list[Figures]) -> list[str]:
    """Figures of one method and size: how many times longer each peer takes than nejax's fastest form."""
    best = min(f.us_per_neuron for f in group if f.by.startswith("nejax"))
    lines = [f"{group[0].what}, {group[0].n_examples} examples", HEAD]
    for f in group:
        ratio = "" if f.by.startswith(("nejax", "the machine")) else f"{f.us_per_neuron / best:.1f}"
        numbers = f"{f.us_per_neuron:>13,.1f}{f.fastest_us:>10,.1f}{f.slowest_us:>10,.1f}"
        lines.append(f"  {f.by:<36}{f.n_neurons:>8,}{numbers}{ratio:>14}  {f.note}".rstrip())
    return lines


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    run_script(main)
