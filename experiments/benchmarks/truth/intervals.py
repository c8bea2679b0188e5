"""How far a figure can be trusted: 95% intervals."""

import math

import numpy as np


def of_share(n_hits: int, n: int) -> tuple[float, float]:
    """Wilson's interval of a share of at least one."""
    z, share = 1.959964, n_hits / n
    centre, width = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (centre - width) / (1 + z * z / n)), min(1.0, (centre + width) / (1 + z * z / n))


def of_median(values: np.ndarray, n_resamples: int = 400) -> tuple[float, float]:
    """Bootstrap interval of a median."""
    rows = np.random.default_rng(0).integers(0, len(values), (n_resamples, len(values)))
    low, high = np.quantile(np.median(values[rows], axis=1), [0.025, 0.975])
    return float(low), float(high)
