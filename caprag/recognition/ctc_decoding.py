"""Reading a CTC network's output: the best labellings of a matrix, and the probability of a given labelling.

A CTC network gives, for every step in time, a distribution over its classes, one of which is the blank. A
path is one class a step; it stands for the labelling that is left when repeats are merged and then blanks
dropped. The probability of a labelling is the sum over all its paths. Nothing here knows characters or
pictures.

References
----------
.. [1] A. Graves, S. Fernandez, F. Gomez, J. Schmidhuber, "Connectionist Temporal Classification: Labelling
   Unsegmented Sequence Data with Recurrent Neural Networks", ICML 2006; the forward recursion is section 4.1.
.. [2] A. Hannun, A. Maas, D. Jurafsky, A. Ng, "First-Pass Large Vocabulary Continuous Speech Recognition
   using Bi-Directional Recurrent DNNs", arXiv:1408.2873; the prefix beam search is algorithm 1, here without
   a language model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def log_probabilities(probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Turn a softmax output into logarithms that are finite and whose rows sum to one exactly.

    A class that underflowed to 0 gets the smallest normal float32, 1.2e-38, so that a labelling with it is
    very improbable instead of impossible.

    Parameters
    ----------
    probabilities
        Shape (T, C), each row >= 0 with a positive sum.

    Returns
    -------
    numpy.ndarray
        Shape (T, C), float64, nats, <= 0.

    Raises
    ------
    ValueError
        Where the shape is not (T, C) with C >= 1, or a number is negative, infinite or NaN, or a row sums to
        0.

    Examples
    --------
    >>> log_probabilities(np.array([[0.5, 0.5]])).round(4).tolist()
    [[-0.6931, -0.6931]]
    """
    table = np.asarray(probabilities, dtype=np.float64)
    _check_matrix(table, "probabilities")
    if not np.isfinite(table).all() or (table < 0).any() or (table.sum(axis=1) == 0).any():
        raise ValueError("probabilities must be finite and >= 0, with a positive sum in each row")
    table = np.maximum(table, float(np.finfo(np.float32).tiny))
    logarithms: npt.NDArray[np.float64] = np.log(table) - np.log(table.sum(axis=1, keepdims=True))
    return np.minimum(logarithms, 0.0)


def prefix_logprobs(
    log_probs: npt.NDArray[np.floating], labellings: Sequence[Sequence[int]], blank: int = 0
) -> npt.NDArray[np.float64]:
    """Give the log-probability of every prefix of every labelling, in one pass over time.

    Parameters
    ----------
    log_probs
        Shape (T, C), nats; ``-inf`` is allowed.
    labellings
        N sequences of classes in [0, C) without `blank`; may be empty.
    blank
        The class that stands for no label.

    Returns
    -------
    numpy.ndarray
        Shape (N, L + 1), float64, with L the longest length. ``[n, i]`` is ln p(the first i labels of
        labelling n, and nothing else), ``-inf`` where T steps are too few; NaN beyond the end of labelling n.

    Raises
    ------
    ValueError
        Where the shape is not (T, C), or a class is outside [0, C) or blank.

    Examples
    --------
    >>> half = np.log(np.full((2, 2), 0.5))
    >>> np.exp(prefix_logprobs(half, [(1,)])).round(4).tolist()
    [[0.25, 0.75]]
    """
    table = np.asarray(log_probs, dtype=np.float64)
    _check_matrix(table, "log_probs")
    _check_classes(table.shape[1], labellings, blank)
    count, longest = len(labellings), max((len(labels) for labels in labellings), default=0)
    # States of a row: blank, label 1, blank, label 2, ... blank; padded with blanks, which no earlier state
    # sees.
    states = np.full((count, 2 * longest + 1), blank, dtype=np.int64)
    for row, labels in zip(states, labellings, strict=True):
        row[1 : 2 * len(labels) : 2] = labels
    may_skip = np.zeros(states.shape, dtype=bool)
    may_skip[:, 1:2] = True
    may_skip[:, 2:] = (states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2])
    # alpha[n, s + 2] is ln of the sum over the paths so far that end in state s. Before the first step all
    # stand in state -1, from where the first blank is the next state and the first label the one after.
    alpha = np.full((count, states.shape[1] + 2), -np.inf)
    alpha[:, 1] = 0.0
    for step in table:
        skipped = np.where(may_skip, alpha[:, :-2], -np.inf)
        alpha[:, 2:] = np.logaddexp(np.logaddexp(alpha[:, 2:], alpha[:, 1:-1]), skipped) + step[states]
        alpha[:, 1] = -np.inf
    result = np.empty((count, longest + 1))
    result[:, 0] = alpha[:, 2] if len(table) else 0.0
    result[:, 1:] = np.logaddexp(alpha[:, 3::2], alpha[:, 4::2])
    result = np.minimum(result, 0.0)
    for prefixes, labels in zip(result, labellings, strict=True):
        prefixes[len(labels) + 1 :] = np.nan
    return result


def forward_logprobs(
    log_probs: npt.NDArray[np.floating], labellings: Sequence[Sequence[int]], blank: int = 0
) -> npt.NDArray[np.float64]:
    """Give the log-probability of each labelling: the sum over all its paths.

    Parameters
    ----------
    log_probs
        Shape (T, C), nats; ``-inf`` is allowed.
    labellings
        N sequences of classes in [0, C) without `blank`; may be empty.
    blank
        The class that stands for no label.

    Returns
    -------
    numpy.ndarray
        Shape (N,), float64, nats, <= 0; ``-inf`` where no path exists.

    Raises
    ------
    ValueError
        Where the shape is not (T, C), or a class is outside [0, C) or blank.

    Examples
    --------
    >>> half = np.log(np.full((2, 2), 0.5))
    >>> np.exp(forward_logprobs(half, [(), (1,), (1, 1)])).round(4).tolist()
    [0.25, 0.75, 0.0]
    """
    prefixes = prefix_logprobs(log_probs, labellings, blank)
    lengths = np.array([len(labels) for labels in labellings], dtype=np.int64)
    return prefixes[np.arange(len(labellings)), lengths]


def forward_logprob(log_probs: npt.NDArray[np.floating], labels: Sequence[int], blank: int = 0) -> float:
    """Give the log-probability of one labelling; see `forward_logprobs`.

    Parameters
    ----------
    log_probs
        Shape (T, C), nats; ``-inf`` is allowed.
    labels
        Classes in [0, C) without `blank`; may be empty.
    blank
        The class that stands for no label.

    Returns
    -------
    float
        Nats, <= 0; ``-inf`` where no path exists.

    Raises
    ------
    ValueError
        Where the shape is not (T, C), or a class is outside [0, C) or blank.

    Examples
    --------
    >>> round(forward_logprob(np.log(np.full((2, 2), 0.5)), (1,)), 4)
    -0.2877
    """
    return float(forward_logprobs(log_probs, [labels], blank)[0])


def best_split_logprob(
    tables: Sequence[npt.NDArray[np.floating]],
    labels: Sequence[int],
    blank: int = 0,
    space: int | None = None,
) -> float:
    """Give the log-probability of a labelling spread over several matrices, cut in the best way.

    Parameters
    ----------
    tables
        One or more matrices, shape (T, C) with any T and one C, nats; ``-inf`` is allowed.
    labels
        Classes in [0, C) without `blank`, in the order of the matrices; may be empty, and so may a piece.
    blank
        The class that stands for no label.
    space
        A class that is dropped at the ends of a piece; ``None`` for no such class.

    Returns
    -------
    float
        Nats, <= 0: the greatest sum of the pieces' log-probabilities; ``-inf`` where no cut has a path.

    Raises
    ------
    ValueError
        Where there is no matrix, a shape is not (T, C), or a class is outside [0, C) or blank.

    Examples
    --------
    >>> sure = np.log(np.array([[0.1, 0.8, 0.1]]))
    >>> round(best_split_logprob([sure, sure], (1, 1)), 4), round(2 * float(np.log(0.8)), 4)
    (-0.4463, -0.4463)
    """
    if not tables:
        raise ValueError("tables must hold at least one matrix, got none")
    count = len(labels)
    # For a cut before label i: where the piece after it begins, and where the piece before it ends.
    begins, ends = list(range(count + 1)), list(range(count + 1))
    for i in range(count - 1, -1, -1):
        begins[i] = begins[i + 1] if labels[i] == space else i
    for i in range(1, count + 1):
        ends[i] = ends[i - 1] if labels[i - 1] == space else i
    best = np.full(count + 1, -np.inf)
    best[0] = 0.0
    for table in tables:
        cuts = [i for i in range(count + 1) if best[i] > -np.inf]
        pieces = prefix_logprobs(table, [labels[begins[i] :] for i in cuts], blank)
        after = np.full(count + 1, -np.inf)
        for i, prefixes in zip(cuts, pieces, strict=True):
            lengths = np.maximum(np.array(ends[i:]) - begins[i], 0)
            after[i:] = np.maximum(after[i:], best[i] + prefixes[lengths])
        best = after
    return float(best[count])


def prefix_beam_search(
    log_probs: npt.NDArray[np.floating],
    blank: int = 0,
    beam_width: int = 16,
    n_best: int = 1,
    top_classes: int = 16,
) -> list[tuple[tuple[int, ...], float]]:
    """Find the most probable labellings of a matrix.

    Paths that stand for the same labelling are merged as they grow, apart by whether they end in a blank. The
    search is approximate; the log-probabilities given are the exact sums over all paths.

    Parameters
    ----------
    log_probs
        Shape (T, C), nats; ``-inf`` is allowed.
    blank
        The class that stands for no label.
    beam_width
        Prefixes kept after each step, >= `n_best`.
    n_best
        At most this many labellings, >= 1.
    top_classes
        At each step only so many of the most probable classes are tried, >= 1, and the blank.

    Returns
    -------
    list of (tuple of int, float)
        Labellings, distinct, and their log-probabilities, best first, equals in order of the labels. Never
        empty; may be shorter than `n_best`.

    Raises
    ------
    ValueError
        Where the shape is not (T, C), `blank` is not a class, `n_best` or `top_classes` is below 1, or
        `beam_width` below `n_best`, or a step gives every class that is tried a probability of 0.

    Examples
    --------
    >>> table = np.log([[0.6, 0.4], [0.6, 0.4]])
    >>> [(labels, round(logprob, 4)) for labels, logprob in prefix_beam_search(table, n_best=2)]
    [((1,), -0.4463), ((), -1.0217)]
    """
    table = np.asarray(log_probs, dtype=np.float64)
    _check_matrix(table, "log_probs")
    _check_classes(table.shape[1], (), blank)
    if n_best < 1 or top_classes < 1:
        raise ValueError(f"n_best and top_classes must be >= 1, got {n_best} and {top_classes}")
    if beam_width < n_best:
        raise ValueError(f"beam_width must be >= n_best, got {beam_width} and {n_best}")
    # Prefix -> [ln p(paths that end in a blank), ln p(paths that end in the prefix's last label)].
    beam: dict[tuple[int, ...], list[float]] = {(): [0.0, -np.inf]}
    for step, labels in zip(table, _best_labels(table, blank, top_classes), strict=True):
        grown: dict[tuple[int, ...], list[float]] = {}
        for prefix, (in_blank, in_label) in beam.items():
            total = float(np.logaddexp(in_blank, in_label))
            _add(grown, prefix, 0, total + float(step[blank]))
            if prefix:
                _add(grown, prefix, 1, in_label + float(step[prefix[-1]]))
            for label in labels:
                before = in_blank if prefix and label == prefix[-1] else total
                _add(grown, (*prefix, label), 1, before + float(step[label]))
        kept = sorted(grown.items(), key=lambda item: (-np.logaddexp(item[1][0], item[1][1]), item[0]))
        if not kept:
            raise ValueError("log_probs must give each step a class with a probability above 0")
        beam = dict(kept[:beam_width])
    found = list(beam)
    scored = zip(found, forward_logprobs(table, found, blank).tolist(), strict=True)
    return sorted(scored, key=lambda item: (-item[1], item[0]))[:n_best]


def _add(beam: dict[tuple[int, ...], list[float]], prefix: tuple[int, ...], ending: int, logprob: float) -> None:
    if logprob > -np.inf:
        entry = beam.setdefault(prefix, [-np.inf, -np.inf])
        entry[ending] = float(np.logaddexp(entry[ending], logprob))


def _best_labels(table: npt.NDArray[np.float64], blank: int, top_classes: int) -> list[list[int]]:
    """Give each step's most probable classes without the blank, best first, equals in order of the class."""
    count = min(top_classes + 1, table.shape[1])
    if count == table.shape[1]:
        chosen = np.broadcast_to(np.arange(count), table.shape)
    else:
        chosen = np.sort(np.argpartition(-table, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(table, chosen, axis=1), axis=1, kind="stable")
    ranked = np.take_along_axis(chosen, order, axis=1).tolist()
    return [[label for label in row if label != blank][:top_classes] for row in ranked]


def _check_matrix(table: npt.NDArray[np.float64], name: str) -> None:
    if table.ndim != 2 or table.shape[1] < 1:
        raise ValueError(f"{name} must have the shape (T, C) with C >= 1, got {table.shape}")
    if np.isnan(table).any():
        raise ValueError(f"{name} must not hold NaN")


def _check_classes(classes: int, labellings: Sequence[Sequence[int]], blank: int) -> None:
    if not 0 <= blank < classes:
        raise ValueError(f"blank must be a class in [0, {classes}), got {blank}")
    for labels in labellings:
        for label in labels:
            if not 0 <= label < classes or label == blank:
                raise ValueError(f"labels must be classes in [0, {classes}) other than blank {blank}, got {label}")
