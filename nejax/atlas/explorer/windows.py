"""Which of a neuron's examples come with their text, and the importance of the tokens in it."""

import numpy as np


def with_text(features: list[int], centrals: list[int], n: int | None) -> list[int]:
    """Which examples have their text: of each feature the central one and the first others, `n` in all."""
    if n is None:
        return list(range(len(features)))
    left = [n - 1] * len(centrals)
    kept = []
    for i, feature in enumerate(features):
        is_central = centrals[feature] == i
        if is_central or left[feature] > 0:
            kept.append(i)
            left[feature] -= not is_central
    return kept


def up_to_peak(importance: np.ndarray, before: int, after: int) -> np.ndarray:
    """[n, before + 1 + after] the importance of the tokens of windows, NaN where it is not known.

    Args:
        importance: [n, up to the peak] of those before the peak and, last, of its own.
        before: tokens of a window before the peak.
        after: tokens after it.
    """
    known = importance[:, max(importance.shape[1] - before - 1, 0) :]
    if ((known < 0) | (known > 1)).any():
        raise ValueError("importance.npy has values that are not between 0 and 1")
    return np.pad(known, ((0, 0), (before + 1 - known.shape[1], after)), constant_values=np.nan)
