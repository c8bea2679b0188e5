"""How many features has a neuron? Rules beside known answers: planted neurons, and chimeras of real ones.

    python experiments/benchmark.py truth                          # 7 minutes on two busy cores, 3 GB of memory
    python experiments/benchmark.py truth --truth_sources=planted  # 3 minutes
    python experiments/benchmark.py truth --quick                  # a minute: does it run?

Besides the figures, `RUN/truth_neurons.json` has every neuron with its seed, its answer and what each rule found, and
`RUN/truth_*.png` are pictures. What is asked, and what came out, is in docs/truth.md.
"""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.subject_flags import FLAGS
from benchmarks.truth import plot, scoreboard
from benchmarks.truth.answers import Answers, answers_for
from benchmarks.truth.arms import ARMS
from benchmarks.truth.chimeras import chimera_units
from benchmarks.truth.figures import ONE, SEVERAL, Figures, figures_of
from benchmarks.truth.model_inputs import read_model
from benchmarks.truth.planted import FAMILIES, Grid, planted_units
from benchmarks.truth.scoreboard import Row, rows_of
from benchmarks.truth.scoring import LARGE
from benchmarks.truth.units import FEWEST, Unit
from nejax.errors import UserError

BUNDLED = "gpt2-tiny"

SOURCES = "planted", "chimera"

QUICK = Grid(n_features=(0, 2), dimensions=(64,), noise=(0.25,), families=(FAMILIES[0], FAMILIES[-1]))


def measure(_: int) -> Iterator[Sequence[Figures | Row]]:
    """Figures of planted neurons, those of chimeras, and the rules side by side."""
    folder, sources = Path(FLAGS.run), FLAGS.truth_sources
    unknown = [source for source in sources if source not in SOURCES]
    if unknown or not sources:
        raise UserError(f"--truth_sources={','.join(unknown)}: expected {' or '.join(SOURCES)}, or both")
    if importlib.util.find_spec("sklearn") is None:
        raise UserError("scikit-learn is not installed; it comes with: pip install -e '.[benchmark]'")
    figures: list[Figures] = []
    answers: dict[str, Answers] = {}
    for source in sources:
        answers[source] = answers_for(_planted() if source == "planted" else _chimeras())
        of_source = figures_of(answers[source])
        figures += of_source
        (folder / "truth_neurons.json").write_text(json.dumps(_by_neuron(list(answers.values()))))
        yield of_source
    rows = rows_of(figures)
    plot.draw_shares(rows, folder / "truth_shares.png")
    if "planted" in answers:
        plot.draw_counts(answers["planted"], rows, folder / "truth_counts.png")
        plot.draw_noise(figures, rows, folder / "truth_noise.png")
    yield rows


def _planted() -> list[Unit]:
    inputs = read_model(BUNDLED, 64 if FLAGS.quick else 256, 1)
    real = inputs.x[-1][inputs.allowed].astype("float32")
    return _with_enough(planted_units(QUICK if FLAGS.quick else Grid(n_each=FLAGS.truth_repeats), real))


def _chimeras() -> list[Unit]:
    inputs = read_model(_model(), _n_sequences(), 4)
    units = _with_enough(chimera_units(inputs, 2 if FLAGS.quick else 40))
    if not units:
        raise UserError(
            f"--truth_sequences={_n_sequences()}: no neuron of {_model()} answers to one token in these; expected more"
        )
    return units


def _with_enough(units: Iterator[Unit]) -> list[Unit]:
    return [unit for unit in units if len(unit.label) >= FEWEST]


def _model() -> str:
    return FLAGS.model or BUNDLED


def _n_sequences() -> int:
    return 256 if FLAGS.quick else FLAGS.truth_sequences


def _by_neuron(answers: list[Answers]) -> dict[str, Any]:
    facts = {"model": _model(), "sequences": _n_sequences(), "repeats": FLAGS.truth_repeats, "quick": FLAGS.quick}
    return {**facts, "neurons": [neuron for of in answers for neuron in of.by_neuron()]}


def table(group: Sequence[Any]) -> list[str]:
    """The rules side by side; or of one source how often each is right, by groups of neurons, small clusters aside."""
    if isinstance(group[0], Row):
        return scoreboard.table(group)
    figures: list[Figures] = [f for f in group if f.arm == ARMS[0]]
    rules = list(dict.fromkeys(f.rule for f in figures))
    lines = []
    for kind in (SEVERAL, ONE):
        some = [f for f in figures if (f.kind, f.form) == (kind, LARGE)]
        if some:
            lines += ["", f"{some[0].source}, {kind}, {LARGE}: share right", _line("", ["neurons", *rules])]
        for name in dict.fromkeys(f.group for f in some):
            of_rule = {f.rule: f for f in some if f.group == name}
            lines.append(_line(name, [str(of_rule[rules[0]].n), *(f"{of_rule[rule].right:.0%}" for rule in rules)]))
    return lines[1:]


def _line(name: str, columns: list[str]) -> str:
    return f"  {name:<16}" + "".join(f"{column:>15}" for column in columns)
