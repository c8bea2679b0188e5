"""Do two finished runs say the same? For runs of another batch size, number of devices, machine or precision.

Prints a table of the layers, and writes every figure as JSON into `--out`, by default `RUN_B/compare.json`.

    python experiments/compare_runs.py runs/batch_16 runs/batch_7     # the same precision: every difference explained?
    python experiments/compare_runs.py runs/float32 runs/bfloat16     # other precisions: how far do they agree?

At the same precision, runs differ by rounding only: a difference is a near-tie if two values that decide it lie within
`--tolerance` of each other, and unexplained otherwise; the exit status is 1 if anything is unexplained. Runs of other
models, tokens or settings are refused with both values named. Seconds on a CPU; memory for one layer of both runs.
"""

import json
import sys
from pathlib import Path
from typing import Any

from absl import flags, logging

from nejax.pipeline.run.constants import TOLERANCE
from nejax.scripts import read_flags, run_script

FLAGS = flags.FLAGS
flags.DEFINE_float(
    "tolerance",
    TOLERANCE,
    "How far apart a near-tie's values may be: activations relative to the neuron's highest (or root mean square), "
    "cosine distances as they are.",
)
flags.DEFINE_string("out", None, "Where the figures are written. Default: RUN_B/compare.json.")

if __name__ == "__main__":
    read_flags("RUN_A", "RUN_B")

import numpy as np

from nejax.errors import UserError
from nejax.pipeline.compare.runs import LayerComparison, compare_runs, open_finished


def figures(layer: LayerComparison) -> dict[str, Any]:
    """What is said of one layer, as JSON values: of `Overlap`, the quantiles over neurons."""
    over = layer.overlap
    # a number in one run and none in the other are infinitely far apart, which JSON cannot say
    values = {name: value if np.isfinite(value) else None for name, value in layer.values._asdict().items()}
    said: dict[str, Any] = {"values": values}
    said |= {name: getattr(layer, name) for name in ("neurons", "same_examples", "same_features")}
    if layer.beyond is not None:
        said["values_beyond_tolerance"] = layer.beyond
        for name in ("kept", "chosen", "features"):
            said[name] = getattr(layer, name)._asdict()
        said["unexplained"] = layer.beyond + sum(said[name]["unexplained"] for name in ("kept", "chosen", "features"))
    quantiles = {
        "jaccard": (over.jaccard, {"median": 50, "5th_percentile": 5}),
        "adjusted_rand_index": (over.rand_index, {"median": 50, "5th_percentile": 5}),
        "n_features_difference": (np.abs(over.n_features), {"median": 50, "95th_percentile": 95}),
        "mean_distance_difference": (np.abs(over.mean_distance), {"median": 50, "95th_percentile": 95}),
    }
    for name, (values, wanted) in quantiles.items():
        there = values[~np.isnan(values)]
        said[name] = {of: round(float(np.percentile(there, q)), 9) if len(there) else None for of, q in wanted.items()}
        said[name]["mean"] = round(float(there.mean()), 9) if len(there) else None
    return said


def table(layers: list[dict[str, Any]], same_precision: bool) -> list[str]:
    """The lines to print: of runs of one precision what is unexplained, otherwise how far they agree."""
    heads = ["layer", "neurons", "same examples", "same features"]
    if same_precision:
        heads += ["near-ties: kept", "chosen", "features", "unexplained", "activations within", "distances within"]
    else:
        heads += ["in common: median", "5th pct", "ARI: mean", "5th pct", "features: 95th pct", "distance: 95th pct"]
    lines = ["  ".join(heads)]
    for number, layer in enumerate(layers):
        cells = [number, layer["neurons"], layer["same_examples"], layer["same_features"]]
        if same_precision:
            cells += [layer[name]["near_ties"] for name in ("kept", "chosen", "features")] + [layer["unexplained"]]
            of_distances = ("height", "max_distance", "mean_distance")
            cells += [_most(layer["values"], "activation"), _most(layer["values"], *of_distances)]
        else:
            jaccard, ari = layer["jaccard"], layer["adjusted_rand_index"]
            cells += [jaccard["median"], jaccard["5th_percentile"], ari["mean"], ari["5th_percentile"]]
            cells += [layer[f"{name}_difference"]["95th_percentile"] for name in ("n_features", "mean_distance")]
        shown = ("-" if cell is None else f"{cell:.4f}" if isinstance(cell, float) else f"{cell}" for cell in cells)
        lines.append("  ".join(cell.rjust(len(head)) for head, cell in zip(heads, shown, strict=True)))
    return lines


def _most(values: dict[str, float | None], *names: str) -> str:
    found = [values[name] for name in names]
    return f"{max(value if value is not None else np.inf for value in found):.1e}"


def main(argv: list[str]) -> None:
    """Compare, print, write."""
    a, b = map(open_finished, argv[1:])
    precisions = a.settings.model.precision, b.settings.model.precision
    same_precision = precisions[0] == precisions[1]
    layers = [figures(layer) for layer in compare_runs(a, b, tolerance=FLAGS.tolerance)]
    result = {"runs": argv[1:], "precisions": precisions, "tolerance": FLAGS.tolerance, "layers": layers}
    lines = [f"{run}: {precision}" for run, precision in zip(argv[1:], precisions, strict=True)]
    print("\n".join([*lines, *table(layers, same_precision)]))
    if same_precision:
        near_ties, unexplained = (
            sum(layer[name][what] for layer in layers for name in ("kept", "chosen", "features"))
            for what in ("near_ties", "unexplained")
        )
        beyond = sum(layer["values_beyond_tolerance"] for layer in layers)
        result |= {"near_ties": near_ties, "unexplained": unexplained + beyond}
        print(
            f"At a tolerance of {FLAGS.tolerance:g}: {near_ties:,} near-ties, {unexplained:,} unexplained differences, "
            f"{beyond:,} neurons with values further apart."
        )
    out = Path(FLAGS.out or Path(argv[2]) / "compare.json")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1))
    except OSError as error:
        raise UserError(f"--out={out} cannot be written ({error.strerror}); use another file") from error
    print(f"Written to {out}")
    if result.get("unexplained"):
        sys.exit(1)


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    run_script(main)
