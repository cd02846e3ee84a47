"""Fit a noise channel to readings with their truth: counts, smoothed, and a few numbers of greatest likelihood.

The number of misread lines is small (some hundreds), so that each share has a prior, stated here as counts.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from caprag.noise.channel import NoiseChannel
from caprag.noise.counting import Tally
from caprag.noise.lines import Lines
from caprag.noise.parameters import BASE, Parameters
from caprag.noise.rates import log_probability
from caprag.noise.tables import Shapes, Tables

Floats = npt.NDArray[np.float64]

# What is believed before anything is counted, as counts.
_PRIOR = 4.0
_SPLIT_PRIOR = 3.0
_MERGE_PRIOR = (1.0, 3.0)
_TEMPERATURES = (0.03, 0.05, 0.07, 0.1, 0.15, 0.25)
_EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_SPREAD = 4.0
_EVENTS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.6, 2.0, 2.6, 3.4, 4.5, 6.0, 10.0, 30.0, 100.0)
_LINES = 5000
_GROUPS = 4


def fit_parameters(
    pairs: Iterable[tuple[str, str]],
    *,
    sources: Sequence[str] | None = None,
    splits: Mapping[str, str] | None = None,
    provenance: Mapping[str, object] | None = None,
    measure: bool = True,
) -> Parameters:
    """Fit a channel's parameters; see `NoiseChannel.fit`.

    Without `measure` the strengths are a stand-in, and no strength can be asked of the channel; that is quicker.
    """
    pairs = list(pairs)
    if sources is not None and len(sources) != len(pairs):
        raise ValueError(f"there are {len(pairs)} pairs and {len(sources)} sources")
    names = [str(_GROUPS * i // len(pairs)) for i in range(len(pairs))] if sources is None else sources
    splits = Parameters.load().splits if splits is None else splits
    tally, groups = Tally(splits), {name: Tally(splits) for name in sorted(set(names))}
    for (reading, truth), name in zip(pairs, names, strict=True):
        groups[name].add(reading, truth)
    for group in groups.values():
        tally.merge(group)
    if not tally.seen:
        raise ValueError(f"{len(pairs)} pairs have no letter in any truth of which something was read")
    start = _counted(tally, list(groups.values()), {"pairs": len(pairs), **(provenance or {})})
    start = _fit_base(start)
    start = _fit_rate(start, tally, list(groups.values()))
    return dataclasses.replace(start, strengths=_measure(start, tally.truths)) if measure else start


def _sorted(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    return {key: dict(sorted(row.items())) for key, row in sorted(counts.items()) if row}


def _share(part: float, whole: float, prior: float, weight: float = _PRIOR) -> float:
    return (part + prior * weight) / (whole + weight)


def _counted(tally: Tally, groups: Sequence[Tally], provenance: Mapping[str, object]) -> Parameters:
    """Turn counts into shares; what needs likelihoods gets a stand-in."""
    shape, habit = _susceptibility(groups)
    kinds, chances = tally.kinds, tally.chances
    lines = len(tally.truths)
    letters, read, inserted = sum(tally.seen.values()), kinds["read"], kinds["insert"]
    mean_read = read / letters
    places = {
        place: (tally.places[place] + _PRIOR) / (chances[place] * mean_read + _PRIOR) if chances[place] else 1.0
        for place in ("first", "last")
    }
    mean_gap = inserted / letters
    gaps = {
        gap: (tally.gaps[gap] + _PRIOR) / (chances[gap] * mean_gap + _PRIOR)
        for gap in ("start", "after_sign", "inner", "end")
    }
    signs_behind = sum(tally.stray.values())
    return Parameters(
        rate={"clean": 0.0, "shape": 1.0, "mean": (read + inserted + 0.5) / letters},
        places=places,
        gaps=gaps,
        base={"drop": 0.2, "split": 0.01, "part": 0.1, "glyph": 0.5, "variant": 0.2, "background": 0.0},
        insertion={
            "share": _share(inserted, read + inserted, 0.1),
            "double": _share(kinds["double"], inserted, 0.3),
            "more": _share(kinds["more"], inserted - kinds["double"] + kinds["more"], 0.1),
            "space": _share(kinds["space"], inserted, 0.5),
        },
        truncation={
            "left": _share(tally.cuts["left"], lines, 0.0005, 1000.0),
            "right": _share(tally.cuts["right"], lines, 0.0005, 1000.0),
            "more": _share(tally.cuts["beyond"], tally.cuts["beyond"] + tally.cuts["left"] + tally.cuts["right"], 0.5),
        },
        smoothing={
            "concentration": 1.0,
            "susceptibility": shape, "habit": habit,
            "temperature": 0.1, "frequency": 0.5, "signs": 2.0,
        },
        single={
            "merge": (kinds["merge"] + _MERGE_PRIOR[0]) / (chances["merge"] + sum(_MERGE_PRIOR)),
            "drop_more": _share(tally.runs["more"], tally.runs["chances"], 0.05),
            "repeat": _share(tally.repeats["alike"], sum(tally.repeats.values()), 0.5),
            "lost": tally.lost / (lines + tally.lost),
            "stray": signs_behind / letters,
            "spread": _SPREAD,
        },
        readings=_sorted(tally.readings),
        seen=dict(sorted(tally.seen.items())),
        alphabet=dict(sorted(tally.alphabet.items())),
        signs=_sorted(tally.signs),
        stray=dict(sorted(tally.stray.items())),
        joins=dict(sorted((c, n) for c, n in tally.signs.get("\n", Counter()).items() if c in ("", " ", "\n"))),
        splits=dict(sorted(tally.splits.items())),
        strengths=((0.0, 0.0), (1.0, 1.0)),
        provenance=provenance,
    )  # fmt: skip


def _concentration(totals: Sequence[int], here: npt.NDArray[np.bool_], chances: Floats) -> float:
    """Find how many counts the base is worth: the concentration of a Dirichlet process of greatest likelihood.

    Parameters
    ----------
    totals
        How often each letter was misread.
    here
        Shape (readings, most), whether a reading was counted more than so many times.
    chances
        Shape (readings, 1), its probability in the base.
    """
    order = np.arange(here.shape[1])[None]

    def likelihood(log: float) -> float:
        m = math.exp(log)
        # A weak prior keeps it in sight of 1 where every letter was misread but once.
        found = -(log**2) / 8 + float((here * np.log(m * chances + order)).sum())
        return found + sum(math.lgamma(m) - math.lgamma(m + n) for n in totals)

    return round(math.exp(_highest(likelihood, -4.0, 7.0)), 4)


def _susceptibility(groups: Sequence[Tally]) -> tuple[float, float]:
    """Find how far a letter's own rate goes by its counts: the shape of its prior, and the share of habit.

    The rates that the other groups give must foretell which letters each group has misread (multinomial likelihood):
    what one film's fonts do to a letter, another's need not.
    """
    misread = [{c: sum(n.values()) for c, n in group.readings.items()} for group in groups]
    whole, seen = Counter[str](), Counter[str]()
    for group, counts in zip(groups, misread, strict=True):
        whole.update(counts)
        seen.update(group.seen)
    if len(groups) < 2 or not all(any(counts.values()) for counts in misread):
        return 1.0, 0.5
    cases: list[tuple[Floats, Floats, Floats, Floats, float]] = []
    for group, counts in zip(groups, misread, strict=True):
        letters = sorted(group.seen)
        times = np.array([group.seen[c] for c in letters], float)
        here = np.array([counts.get(c, 0) for c in letters], float)
        elsewhere = np.array([whole[c] for c in letters]) - here
        others = np.array([seen[c] for c in letters]) - times
        mean = (sum(whole.values()) - here.sum()) / (sum(seen.values()) - times.sum())
        cases.append((times, here, elsewhere, mean * others, mean))

    def likelihood(shape: float, habit: float) -> float:
        found = -abs(math.log(shape)) * 1e-6
        for times, here, elsewhere, expected, _ in cases:
            weights = times * (habit * (elsewhere + shape) / (expected + shape) + 1.0 - habit)
            found += float((here[here > 0] * np.log(weights[here > 0] / weights.sum())).sum())
        return found

    grid = [(shape, habit) for shape in np.exp(np.linspace(-4, 4, 17)) for habit in np.linspace(0.0, 0.95, 20)]
    shape, habit = max(grid, key=lambda point: likelihood(float(point[0]), float(point[1])))
    return round(float(shape), 4), round(float(habit), 4)


def _highest(function: Callable[[float], float], low: float, high: float) -> float:
    """Find where a function of one number is highest: a grid, then the golden section about its best point."""
    grid = np.linspace(low, high, 41)
    best = int(np.argmax([function(float(x)) for x in grid]))
    a, b = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, 40)])
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(30):
        c, d = b - ratio * (b - a), a + ratio * (b - a)
        a, b = (a, d) if function(c) > function(d) else (c, b)
    return (a + b) / 2


def _fit_base(p: Parameters) -> Parameters:
    """Fit the shares of the base, and how shape and frequency weigh in look-alikes, by expectation maximisation.

    A reading that recurs for its letter counts little more than once: the base is where new ones come from.

    References
    ----------
    Antoniak, Mixtures of Dirichlet Processes, Annals of Statistics 2(6), 1974.
    """
    from caprag.glyphs import GlyphTable

    shapes = Shapes(GlyphTable.load(), p.seen, 0.1, 0.5)
    pairs = [(c, r) for c, readings in p.readings.items() for r, n in readings.items() if n]
    total = sum(p.seen.values())
    drop = np.array([r == "" for _, r in pairs], float)
    split = np.array([p.splits.get(c) == r for c, r in pairs], float)
    part = np.array([r != "" and r in p.splits.get(c, "") for c, r in pairs]) * 0.5
    variants = {c: shapes.variants(c) for c, _ in pairs}
    variant = np.array([(r in variants[c]) / max(len(variants[c]), 1) for c, r in pairs])
    # A letter never seen in the truths is read now and then: as rare as one among all that the table knows.
    background = np.array(
        [(p.seen.get(r, 0) + 0.5) / (total + 0.5 * len(shapes.letters)) if r else 0.0 for _, r in pairs]
    )
    counts = np.array([p.readings[c][r] for c, r in pairs], int)
    order = np.arange(max(counts.max(initial=1), 1))[None]
    here, m = order < counts[:, None], 1.0
    totals = [sum(readings.values()) for readings in p.readings.values()]
    glyphs = shapes.chances(pairs, _TEMPERATURES, _EXPONENTS)
    prior = np.array([_SPLIT_PRIOR if name == "split" else 1.0 for name in BASE])
    # The concentration and the base lean on each other; three rounds settle them.
    for _ in range(3):
        best = (-math.inf, np.zeros(0), np.zeros((0, 1)), 0.1, 0.5)
        for (temperature, exponent), glyph in glyphs.items():
            columns = np.stack([drop, split, part, glyph, variant, background], 1)
            shares = np.full(len(BASE), 1 / len(BASE))
            for _ in range(60):
                chances = columns * shares
                base = np.maximum(chances.sum(1, keepdims=True), 1e-300)
                # How often a reading came from the base, not from a habit: Antoniak's expectation.
                drawn = (here * m * base / (m * base + order)).sum(1, keepdims=True)
                weights = (drawn * chances / base).sum(0) + prior
                shares = weights / weights.sum()
            base = np.maximum(columns @ shares, 1e-300)[:, None]
            value = float((here * np.log(m * base + order)).sum() + (prior * np.log(shares)).sum())
            if value > best[0]:
                best = (value, shares, base, temperature, exponent)
        m = _concentration(totals, here, best[2])
    found = {name: round(float(share), 5) for name, share in zip(BASE, best[1], strict=True)}
    smoothing = {**p.smoothing, "concentration": m, "temperature": best[3], "frequency": best[4]}
    return dataclasses.replace(p, base=found, smoothing=smoothing)


def _fit_rate(p: Parameters, tally: Tally, groups: Sequence[Tally]) -> Parameters:
    """Fit the distribution of the lines' rates: a negative binomial, inflated at nought, of greatest likelihood.

    A group's letters are weighed by the other groups: by its own they would tell too well which lines are misread.
    """
    counts: Counter[tuple[int, float]] = Counter()
    for group in groups:
        if not group.truths:
            continue
        others = Tally(tally.splits)
        for other in groups:
            if other is not group:
                others.merge(other)
        known = others if others.seen else tally
        weighing = dataclasses.replace(p, readings=_sorted(known.readings), seen=dict(known.seen))
        exposures = Lines(group.truths, Tables(weighing), weighing, 0, 0).exposure
        counts.update(zip(group.events, (np.maximum(np.rint(exposures * 2), 1) / 2).tolist(), strict=True))
    rows = sorted(counts.items())
    events = max(sum(tally.events), 0.5)
    mean = events / sum(exposure * n for (_, exposure), n in rows)

    def likelihood(point: Sequence[float]) -> float:
        clean, shape, rate = 1 / (1 + math.exp(-point[0])), math.exp(point[1]), math.exp(point[2])
        # Weak priors: without them the clean share and the shape may run away where there is little to see.
        prior = -((point[0] + 1) ** 2) / 32 - point[1] ** 2 / 8
        return prior + sum(n * log_probability(k, e, clean, shape, rate) for (k, e), n in rows)

    point, step = [-1.0, 0.0, math.log(mean)], 1.0
    value = likelihood(point)
    while step > 1e-3:
        moved = False
        for axis in range(3):
            for sign in (1, -1):
                near = [x + sign * step * (i == axis) for i, x in enumerate(point)]
                if (there := likelihood(near)) > value:
                    point, value, moved = near, there, True
        step = step if moved else step / 2
    clean, shape = 1 / (1 + math.exp(-point[0])), math.exp(point[1])
    rate = events / (1 - clean) / float(Lines(tally.truths, Tables(p), p, 0, 0).exposure.sum())
    return dataclasses.replace(p, rate={"clean": round(clean, 5), "shape": round(shape, 5), "mean": round(rate, 7)})


def _measure(p: Parameters, truths: Sequence[str]) -> tuple[tuple[float, float], ...]:
    """Measure what character error rate each number of events a letter comes to, over lines of the truths."""
    texts = [truths[i] for i in np.linspace(0, len(truths) - 1, min(_LINES, len(truths))).astype(int)]
    # A curve on which the rate of events is the strength.
    plain = NoiseChannel(dataclasses.replace(p, strengths=((0.0, 0.0), (1000.0, 1.0))))
    found = [(0.0, 0.0)]
    for events in _EVENTS:
        readings = plain.corrupt(texts, seed=1, strength=events / 1000)
        rate = error_rate(readings, texts)
        if rate > found[-1][1]:
            found.append((events, round(rate, 5)))
    return (*found, (found[-1][0] * 10, 1.0))


def error_rate(readings: Sequence[str], truths: Sequence[str]) -> float:
    """Return the edits of all lines over letters and digits, a character of the truth: the character error rate."""
    edits = letters = 0
    for reading, truth in zip(readings, truths, strict=True):
        a, b = ([c for c in text if c.isalnum()] for text in (truth, reading))
        edits += _distance(a, b) if a != b else 0
        letters += len(a)
    return edits / letters


def _distance(a: Sequence[str], b: Sequence[str]) -> int:
    previous = list(range(len(b) + 1))
    for i, c in enumerate(a, 1):
        current = [i]
        for j, d in enumerate(b):
            current.append(min(previous[j] + (c != d), previous[j + 1] + 1, current[j] + 1))
        previous = current
    return previous[-1]
