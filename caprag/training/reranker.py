"""A decision of one's own: the shipped one fitted anew to readings whose truth is known.

Each file of pairs is an episode in its order. It is looked up twice: with the corpus as it is, and with the episode's
own sentences taken out of what is found, since a decision that never saw a sentence missing would snap always. Few
lines move the shipped decision as a whole, and leave what its features mean to each other; many fit all weights. Pairs
are texts: what a picture says has the weight that it had before. (How often pairs of characters occur is asked of the
whole corpus all the same.)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caprag.errors import CapragError, CorpusError, require
from caprag.pipeline import Pipeline
from caprag.progress import progress_bar
from caprag.reranking import Episode, Found, Reranker, fit_reranker
from caprag.reranking.confusions import load_glyphs
from caprag.reranking.cross_encoder import CrossEncoderScorer, load_cross_encoder
from caprag.reranking.decision import Decision
from caprag.reranking.examples import Example
from caprag.reranking.fitting import counted, listener
from caprag.reranking.learners import kept_readings
from caprag.reranking.surety import Surety
from caprag.reranking.weights import CASES, Linear
from caprag.retrieval import Index
from caprag.text import countable

ENOUGH = 4000
"""Readings from which on all weights are fitted."""

_AT_ONCE = 512
"""Readings that are looked up together."""
_PULL = 10.0
"""How strongly few readings are held to the shipped decision: as if so many had agreed with it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A reading and what it should have been."""

    read: str
    truth: str


def read_pairs(path: str | PathLike[str], *, on_error: Callable[[CapragError], None] | None = None) -> list[Pair]:
    """Read readings with their truth.

    Parameters
    ----------
    path
        JSON lines with ``read`` and ``truth``, as the page of `caprag review` saves them; any other text file: reading,
        tab, truth.
    on_error
        Called for a line that is none; ``None`` raises.

    Returns
    -------
    list of Pair
        In order.

    Raises
    ------
    CorpusError
        Where the file can't be read, or has no pair.
    """
    place = Path(path)
    pairs: list[Pair] = []
    try:
        lines = place.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{place}: can't be read ({error}); name a file of pairs in UTF-8") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            pairs.append(_pair(line.rstrip("\r"), place.suffix.lower() in (".jsonl", ".json")))
        except (ValueError, KeyError, TypeError) as error:
            wrong = CorpusError(
                f"{place}, line {number}: is no pair ({error}); wanted are reading, tab, truth, or JSON with read and "
                "truth"
            )
            if on_error is None:
                raise wrong from error
            on_error(wrong)
    if not pairs:
        raise CorpusError(f"{place}: has no pair; wanted are reading, tab, truth, or JSON with read and truth")
    return pairs


def _pair(line: str, as_json: bool) -> Pair:
    if as_json:
        found = json.loads(line)
        if not isinstance(found["read"], str) or not isinstance(found["truth"], str):
            raise TypeError("read and truth must be texts")
        return Pair(found["read"], found["truth"])
    read, tab, truth = line.partition("\t")
    if not tab or "\t" in truth:
        raise ValueError(f"{line.count(chr(9))} tabs")
    return Pair(read, truth)


def train_reranker(
    episodes: Sequence[Sequence[Pair]], index: Index, *, base: Reranker | None = None, k: int = 10, risk: float = 0.002,
    cross_encoder: CrossEncoderScorer | None = None, progress: bool = False,
) -> Reranker:  # fmt: skip
    """Fit a decision to readings.

    Parameters
    ----------
    episodes
        Readings with their truth, each list in the order of its programme.
    index
        The corpus that they will be looked up in.
    base
        The decision to start from; ``None``: the shipped one.
    k
        Sentences weighed for a reading, >= 1.
    risk
        See `caprag.reranking.fit_reranker`.
    cross_encoder
        What it says of reading and sentence is one more feature, and it is loaded again wherever the decision is used;
        ``None`` takes the base's. A new one wants `ENOUGH` readings.
    progress
        Whether to show on stderr how far it is.

    Returns
    -------
    Reranker
        From `ENOUGH` readings on all its weights are new; with fewer it is the base, moved.

    Raises
    ------
    ValueError
        For no readings, too few for a cross-encoder, or where they do not show what is to be told apart.
    ModelError
        Where the base's cross-encoder can't be loaded.
    MissingDependencyError
        Where scikit-learn is not installed.
    """
    require("sklearn", "train")
    start = base or Reranker.load()
    count = sum(map(len, episodes))
    if cross_encoder is None and start.cross_encoder:
        cross_encoder = load_cross_encoder(start.cross_encoder)
    name = cross_encoder.name if cross_encoder is not None else ""
    if name != start.cross_encoder and count < ENOUGH:
        raise ValueError(f"{name}: {count} readings can't teach what a cross-encoder means; give {ENOUGH}, or leave it")
    described: list[Episode] = []
    with progress_bar(count, "look up", " readings", show=progress) as bar:
        for number, pairs in enumerate(episodes):
            described += _episodes(pairs, index, k, str(number), cross_encoder, start.uncounted)
            bar.update(len(pairs))
    examples = [example for episode in described for example in episode.line_examples()]
    if len(episodes) == 1:
        # A reading with its sentence and without it are judged together.
        examples = [replace(example, group=str(place % count % 5)) for place, example in enumerate(examples)]
    if not examples:
        raise ValueError("there are no readings; give at least one episode")
    about = {"readings": count, "episodes": len(episodes), "corpus_sentences": len(index)}
    if about["readings"] >= ENOUGH:
        fitted = fit_reranker(
            examples, episodes=described, risk=risk, uncounted=start.uncounted, provenance=about
        )  # fmt: skip
        line = _with_unseen(fitted.line, start.line, examples)
        return replace(fitted, line=line, picture=start.picture, cross_encoder=name)
    return _moved(start, examples, described, risk, {**about, "base": dict(start.provenance)})


def _episodes(
    pairs: Sequence[Pair],
    index: Index,
    k: int,
    group: str,
    cross_encoder: CrossEncoderScorer | None,
    uncounted: tuple[str, ...],
) -> Iterator[Episode]:
    """Describe an episode as it is found, and as if the corpus lacked its sentences."""
    pipeline = Pipeline(index, reranker=listener(), k=k)
    truths = [pair.truth for pair in pairs]
    own = frozenset(map(countable, truths))
    for known in (True, False):
        found = pipeline.found_for([pair.read for pair in pairs], at_once=_AT_ONCE, without=() if known else own)
        told = [one if cross_encoder is None else _told(cross_encoder, one) for one in found]
        yield Episode.of(
            told, truths, index.frequency, sentences=len(index), known=known, group=group, glyphs=load_glyphs(uncounted)
        )  # fmt: skip


def _told(cross_encoder: CrossEncoderScorer, found: Found) -> Found:
    read = found.hypotheses[0].text
    return replace(found, cross=cross_encoder.score([(read, hit.text) for hit in found.hits], unit="logit").tolist())


def _with_unseen(fitted: Decision[Linear], start: Decision[Linear], examples: Sequence[Example]) -> Decision[Linear]:
    """Keep the weights of features that never varied: those of pictures."""
    rows = [example.features for example in examples if example.features is not None]
    before, now = start.weights, fitted.weights
    unseen = {name for name in before.snap if len({features[name] for features in rows}) < 2}
    snap, keep = (
        {name: (old if name in unseen else new)[name] for name in old}
        for old, new in ((before.snap, now.snap), (before.keep, now.keep))
    )
    return replace(fitted, weights=replace(now, snap=snap, keep=keep))


def _moved(
    start: Reranker, examples: Sequence[Example], episodes: Sequence[Episode], risk: float, about: Mapping[str, Any]
) -> Reranker:
    line = _moved_decision(start.line, examples, risk)
    moved = replace(start, line=line, provenance=about)
    weighed = [(example, line) for example in examples]
    if start.order is not None:
        told = [example for episode in episodes for example in episode.examples(moved)]
        decision = _moved_decision(start.order.decision, told, risk)
        moved = replace(moved, order=replace(start.order, decision=decision))
        weighed += [(example, decision) for example in told]
    return replace(moved, surety=None if start.surety is None else _moved_surety(start, start.surety, weighed))


def _moved_surety(start: Reranker, surety: Surety, weighed: Sequence[tuple[Example, Decision[Linear]]]) -> Surety:
    """Shift how sure kept readings are to how often these are right."""
    optimize: Any = require("scipy.optimize", "train")
    kept = [(example, sure) for example, sure in kept_readings(weighed)]
    if not kept:
        return surety
    odds = np.array([surety.log_odds(example.reading, sure, start.uncounted) for example, sure in kept])
    right = np.array([example.reading_right for example, _ in kept])

    def loss(shift: float) -> float:
        return float(np.logaddexp(0, np.where(right, -1, 1) * (odds + shift)).sum() + 0.5 * _PULL * shift**2)

    found = optimize.minimize_scalar(loss, bounds=(-20, 20), method="bounded")
    return replace(surety, bias=surety.bias + float(found.x))


def _moved_decision(decision: Decision[Linear], examples: Sequence[Example], risk: float) -> Decision[Linear]:
    """Scale and shift the log odds of a decision."""
    fitted = _fit_scales(decision, examples)
    # With four numbers fitted, a line's own part in them is small: it is counted by what it helped to fit.
    return counted(fitted, [(example, fitted) for example in examples], risk)


def _fit_scales(decision: Decision[Linear], examples: Sequence[Example]) -> Decision[Linear]:
    optimize: Any = require("scipy.optimize", "train")
    rows = [e for e in examples if e.features is not None and not e.exact]
    if not rows:
        return decision
    odds = np.array([decision.weights.log_odds(e.features or {}) for e in rows])
    labels = np.array([CASES.index(e.case) for e in rows])

    def loss(numbers: npt.NDArray[np.float64]) -> float:
        snap, keep = odds[:, 0] * numbers[0] + numbers[1], odds[:, 1] * numbers[2] + numbers[3]
        table = np.stack([np.zeros(len(odds)), keep, snap], 1)
        top = table.max(1)
        norm = top + np.log(np.exp(table - top[:, None]).sum(1))
        held = np.sum((numbers - np.array([1.0, 0.0, 1.0, 0.0])) ** 2)
        return float(np.sum(norm - table[np.arange(len(odds)), labels]) + 0.5 * _PULL * held)

    found = optimize.minimize(loss, np.array([1.0, 0.0, 1.0, 0.0]), method="Nelder-Mead", options={"maxiter": 4000})
    by_snap, to_snap, by_keep, to_keep = (float(number) for number in found.x)
    old = decision.weights
    moved = Linear(
        snap={name: weight * by_snap for name, weight in old.snap.items()},
        keep={name: weight * by_keep for name, weight in old.keep.items()},
        snap_bias=old.snap_bias * by_snap + to_snap, keep_bias=old.keep_bias * by_keep + to_keep,
    )  # fmt: skip
    return replace(decision, weights=moved)


__all__ = ["ENOUGH", "Pair", "read_pairs", "train_reranker"]
