"""How many events the letters of a line have: a rate that is gamma distributed, or nought.

The number of events is then negative binomial, inflated at nought. It knows nothing of letters.

References
----------
Greenwood and Yule, An Inquiry into the Nature of Frequency Distributions Representative of Multiple Happenings,
JRSS 83, 1920 (the gamma mixture of Poisson counts).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_POINTS = 8001


def no_event(rate: Mapping[str, float], exposure: float | Floats) -> Floats:
    """Return the probability that a line of some exposure (letters, weighted) has no event, in [0, 1]."""
    spoilt = (1.0 + rate["mean"] * np.asarray(exposure) / rate["shape"]) ** -rate["shape"]
    return np.asarray(rate["clean"] + (1.0 - rate["clean"]) * spoilt, np.float64)


def log_probability(events: int, exposure: float, clean: float, shape: float, mean: float) -> float:
    """Return ln P(number of events | exposure), in nats."""
    scaled = mean * exposure / shape
    found = math.lgamma(events + shape) - math.lgamma(shape) - math.lgamma(events + 1)
    found += events * (math.log(scaled) - math.log1p(scaled)) - shape * math.log1p(scaled)
    probability = (1.0 - clean) * math.exp(found) + (clean if events == 0 else 0.0)
    return math.log(max(probability, 1e-300))


def rate_quantiles(clean: float, shape: float, mean: float, uniforms: Floats) -> Floats:
    """Return the rates below which lie the given shares of lines: 0 for the `clean` ones, else gamma."""
    grid, below = _table(shape, mean, 0)
    found = np.interp((uniforms - clean) / max(1.0 - clean, 1e-12), below, grid)
    return np.where(uniforms < clean, 0.0, found)


def misread_rate_quantiles(shape: float, mean: float, exposures: Floats, uniforms: Floats) -> Floats:
    """Return quantiles of the rate of lines that have an event; exposures count as whole numbers, at least 1."""
    whole = np.maximum(np.rint(exposures), 1).astype(np.int64)
    found = np.empty_like(uniforms)
    for exposure in np.unique(whole).tolist():
        grid, below = _table(shape, mean, exposure)
        rows = whole == exposure
        found[rows] = np.interp(uniforms[rows], below, grid)
    return found


@functools.lru_cache(maxsize=512)
def _table(shape: float, mean: float, exposure: int) -> tuple[Floats, Floats]:
    """Return rates and the share below each; with an exposure, of lines that have an event at it."""
    # In the logarithm the density is smooth however small the shape.
    logs = np.linspace(math.log(mean) - 24.0 - 16.0 / min(shape, 1.0), math.log(mean) + 8.0, _POINTS)
    rates = np.exp(logs)
    log_density = shape * logs - rates * (shape / mean)
    density = np.exp(log_density - log_density.max())
    if exposure:
        density *= -np.expm1(-rates * exposure)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return rates, below / below[-1]
