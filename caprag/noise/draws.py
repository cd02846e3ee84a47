"""Random numbers that are found by their place, not by their turn, so that any batch draws the same ones.

Philox4x32-10 maps a key and a counter of four words to four random words. Here the key is the seed and the counter
names the text, the place in it and the purpose. It knows nothing of what is drawn.

References
----------
Salmon, Moraes, Dror and Shaw, Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

Words = npt.NDArray[np.uint64]


def philox(counter: tuple[Words, Words, Words, Words], key: int) -> tuple[Words, Words, Words, Words]:
    """Return four random words for each counter.

    Parameters
    ----------
    counter
        Four arrays of one shape, uint64, values below 2**32.
    key
        In [0, 2**64).

    Returns
    -------
    tuple of numpy.ndarray
        Four arrays of that shape, uint64, values below 2**32.
    """
    a, b, c, d = counter
    low, high = key & 0xFFFFFFFF, key >> 32
    for _ in range(_ROUNDS):
        first, second = _MULTIPLIERS[0] * a, _MULTIPLIERS[1] * c
        a = (second >> _HALF) ^ b ^ np.uint64(low)
        c = (first >> _HALF) ^ d ^ np.uint64(high)
        b, d = second & _WORD, first & _WORD
        low, high = (low + _WEYL[0]) & 0xFFFFFFFF, (high + _WEYL[1]) & 0xFFFFFFFF
    return a, b, c, d


def uniforms(
    seed: int, numbers: npt.NDArray[np.int64], places: npt.NDArray[np.int64], purpose: int
) -> npt.NDArray[np.float64]:
    """Draw four numbers for each place.

    Parameters
    ----------
    seed
        Any non-negative int; its lowest 64 bits count.
    numbers
        Shape (n,), which text, in [0, 2**63).
    places
        Shape (n,), where in it, in [0, 2**32).
    purpose
        What for, in [0, 2**32): each purpose has draws of its own.

    Returns
    -------
    numpy.ndarray
        Shape (4, n), float64, strictly between 0 and 1.
    """
    wide = numbers.astype(np.uint64)
    counter = (places.astype(np.uint64), wide & _WORD, wide >> _HALF, np.full(len(wide), purpose, np.uint64))
    return (np.stack(philox(counter, seed & 0xFFFFFFFFFFFFFFFF)).astype(np.float64) + 0.5) * 2.0**-32
