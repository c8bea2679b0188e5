"""Every rule's answers for every neuron, as every arm shows them."""

from typing import Any, NamedTuple

import numpy as np

from benchmarks.truth.arms import ARMS, NULL, by_token, views_of
from benchmarks.truth.rules import RULES
from benchmarks.truth.scoring import FORMS, Score, scores_of
from benchmarks.truth.units import SEPARABLE, Unit, nearest_neighbour_accuracy

TOKENS = "token identity"
"""An arm, and its one rule: examples with the same token at the peak are one feature."""


class Key(NamedTuple):
    """Whose answer it is."""

    arm: str
    rule: str
    form: str


class Answers(NamedTuple):
    """Of all neurons of one source."""

    units: list[Unit]
    accuracy: dict[str, np.ndarray]
    """Arm -> [m] how often the nearest other example has the same label, see `nearest_neighbour_accuracy`."""
    scores: dict[Key, list[Score]]

    @property
    def is_separable(self) -> np.ndarray:
        """[m] whether the neuron's embeddings tell the labels apart. The same neurons count for all arms."""
        return self.accuracy[ARMS[0]] >= SEPARABLE

    def by_neuron(self) -> list[dict[str, Any]]:
        """What is known of each, for JSON."""
        return [
            {
                **{name: getattr(unit, name) for name in ("source", "family", "n_features", "seed", "made_of")},
                "noise": _or_none(unit.noise),
                "d": len(unit.w),
                "n_examples": len(unit.label),
                "features_counted": unit.answer[1],
                "right_from_to": [unit.answer[0], unit.answer[2]],
                "nearest_neighbour_accuracy": {arm: _or_none(values[i]) for arm, values in self.accuracy.items()},
                "found": {" / ".join(key): scores[i].found for key, scores in self.scores.items()},
                "ari": {" / ".join(key): _or_none(scores[i].ari) for key, scores in self.scores.items()},
            }
            for i, unit in enumerate(self.units)
        ]


def answers_for(units: list[Unit]) -> Answers:
    """Ask every rule. Shuffled dimensions have no features, so there all labels are -1."""
    accuracy, scores = {}, {}
    for arm in ARMS:
        views = views_of(units, arm)
        asked = [unit._replace(label=np.full_like(unit.label, -1)) for unit in units] if arm == NULL else units
        pairs = zip(views.distances, asked, strict=True)
        accuracy[arm] = np.array([nearest_neighbour_accuracy(distances, unit) for distances, unit in pairs])
        for name, rule in RULES.items():
            _add(scores, asked, rule(views), arm, name)
    if all(unit.token is not None for unit in units):
        _add(scores, units, by_token(units), TOKENS, TOKENS)
    return Answers(units, accuracy, scores)


def _or_none(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _add(scores: dict[Key, list[Score]], units: list[Unit], labels: np.ndarray, arm: str, rule: str) -> None:
    for form, counted in FORMS.items():
        scores[Key(arm, rule, form)] = scores_of(units, counted(labels))
