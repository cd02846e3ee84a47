"""How good generated texts are against references: the metrics of captioning and of reading, in one report.

Says which metric is made of what; how each is computed is told by its own module. Knows nothing of files.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from os import PathLike
from typing import cast

import numpy as np

from caprag.errors import CapragError, MissingDependencyError, require
from caprag.evaluation.metrics import count_errors
from caprag.evaluation.report import hash_of, package_version
from caprag.evaluation.texts import java, overlap
from caprag.evaluation.texts.report import TextReport
from caprag.evaluation.texts.tokens import Tokenizer, check_tokenizer, choose_tokenizer, split_texts
from caprag.evaluation.texts.totals import Array, Totals, mean_of
from caprag.text import Characters
from caprag.types import Report

FIGURES = {
    "bleu": ("bleu-1", "bleu-2", "bleu-3", "bleu-4"),
    "sacrebleu": ("sacrebleu",),
    "meteor": ("meteor",),
    "rouge-l": ("rouge-l",),
    "cider": ("cider",),
    "spice": ("spice",),
    "bertscore": ("bertscore-p", "bertscore-r", "bertscore-f1"),
    "cer": ("cer",),
    "mean-edits": ("mean-edits",),
}
"""Each metric and the figures that it gives."""
METRICS = ("bleu", "meteor", "rouge-l", "cider", "spice", "cer", "mean-edits")
"""What is measured where nothing is asked for; with a model for it, bertscore too."""


def evaluate_text(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str] | None = None,
    *,
    ids: Sequence[str] | None = None,
    tokenize: str = "auto",
    lowercase: bool = False,
    bertscore_model: str | PathLike[str] | None = None,
    bertscore_layer: int | None = None,
    device: str | None = None,
    batch_size: int = 64,
    name: str = "candidates",
    samples: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> TextReport:
    """Measure generated texts against references.

    BLEU-1 to 4, METEOR, ROUGE-L, CIDEr and SPICE have the values of pycocoevalcap on the same tokens, ``sacrebleu``
    that of sacreBLEU, BERTScore those of bert-score. BLEU, METEOR and the character error rate are computed from counts
    summed over items; the others are means. Intervals are of resampled items, with their counts; the rarities of CIDEr
    stay those of all references.

    Parameters
    ----------
    candidates
        One text an item.
    references
        For each item its references, at least one; in their order nothing lies.
    metrics
        Keys or single figures of `FIGURES`; ``None`` takes `METRICS`.
    ids
        Names of the items; ``None`` numbers them from 1.
    tokenize
        A `caprag.evaluation.texts.tokens.Tokenizer`, or ``"auto"``: characters where the references are mostly Han
        characters, else sacreBLEU's 13a. Character errors and BERTScore see the texts as they are.
    lowercase
        Whether case is dropped before splitting into tokens.
    bertscore_model, bertscore_layer, device, batch_size
        See `caprag.evaluation.texts.bertscore.bert_score`.
    name
        What is evaluated.
    samples, seed
        Of the resampling.
    progress
        Whether to show on stderr how far BERTScore is.

    Returns
    -------
    TextReport
        With the metrics that could not be measured, and why: METEOR and SPICE where Java or their programs are absent,
        SPICE for Chinese, which it can't parse, sacrebleu without its package, CIDEr of a single item. Of several
        references, character errors count against the one with the fewest.

    Raises
    ------
    ValueError
        Where the lists differ in length, nothing is to be measured, an item has no reference, or a name is unknown.
    TypeError
        For references that are a text instead of a list of texts.
    MissingDependencyError
        Where a tokenizer is absent.
    CapragError
        Where nothing that was asked for can be measured, or a program or model fails.

    Examples
    --------
    >>> report = evaluate_text(["一隻貓坐著"], [["一隻貓坐在地上", "貓坐著"]], ["bleu-1", "rouge-l", "mean-edits"])
    >>> {metric: round(figure.value, 4) for metric, figure in report.reports.items()}
    {'bleu-1': 1.0, 'rouge-l': 0.9071, 'mean-edits': 2.0}
    """
    names = _wanted(metrics, with_model=bertscore_model is not None)
    _check(candidates, references, ids)
    if "bertscore" in names and bertscore_model is None:
        raise ValueError("bertscore is asked for without a model; give bertscore_model (--bertscore-model)")
    check_tokenizer(tokenize)
    every = [text for truths in references for text in truths]
    chosen = choose_tokenizer(every) if tokenize == "auto" else cast(Tokenizer, tokenize)

    @functools.cache
    def tokens() -> tuple[list[list[str]], list[list[list[str]]]]:
        # At one go: a tokenizer may be a program that takes its time to start.
        flat = iter(split_texts([*candidates, *every], chosen, lowercase=lowercase))
        return [next(flat) for _ in candidates], [[next(flat) for _ in truths] for truths in references]

    @functools.cache
    def counts() -> Array:
        return overlap.bleu_counts(*tokens())

    def bleu() -> list[Totals]:
        scores: list[Callable[[Array], Array]] = [functools.partial(overlap.bleu, n=n) for n in range(1, 5)]
        return [_sums(counts(), score) for score in scores]

    def sacrebleu() -> list[Totals]:
        single = overlap.sacrebleu(counts(), effective_order=True)
        return [Totals(counts(), overlap.sacrebleu, tuple(single.tolist()))]

    def bertscore() -> list[Totals]:
        from caprag.evaluation.texts.bertscore import bert_score

        found = bert_score(
            candidates, references, bertscore_model or "", layer=bertscore_layer, device=device, batch_size=batch_size,
            progress=progress,
        )  # fmt: skip
        notes["bertscore"] = found.signature
        return [mean_of(found.precision), mean_of(found.recall), mean_of(found.f1)]

    made: dict[str, Callable[[], list[Totals]]] = {
        "bleu": bleu,
        "sacrebleu": sacrebleu,
        "meteor": lambda: [_sums(java.meteor_counts(*tokens()), java.meteor)],
        "rouge-l": lambda: [mean_of(overlap.rouge_l(*tokens()))],
        "cider": lambda: [mean_of(overlap.cider(*tokens()))],
        "spice": lambda: [mean_of(java.spice(*tokens()))],
        "bertscore": bertscore,
        "cer": lambda: [_error_rate(candidates, references)],
        "mean-edits": lambda: [mean_of(_nearest(candidates, references, "all")[:, 0], higher=False)],
    }
    notes = {
        "bleu": "pycocoevalcap", "rouge-l": "pycocoevalcap", "cider": "pycocoevalcap", "meteor": "1.5,en,norm",
        "spice": "1.0", "sacrebleu": f"{package_version('sacrebleu')},exp", "cer": "letters,nearest",
        "mean-edits": "all,nearest",
    }  # fmt: skip
    left_out = {key: reason for key in names if (reason := _reason(key, len(candidates), chosen))}
    totals: dict[str, Totals] = {}
    for key, figures in names.items():
        if key not in left_out:
            totals.update((f, t) for f, t in zip(FIGURES[key], made[key](), strict=True) if f in figures)
    if not totals:
        raise CapragError("nothing can be measured: " + "; ".join(f"{key}: {why}" for key, why in left_out.items()))
    items = tuple(ids) if ids is not None else tuple(str(i) for i in range(1, len(candidates) + 1))
    asked = hash_of(
        f"{item}\t{text}" for item, truths in zip(items, references, strict=True) for text in sorted(truths)
    )
    sizes = sorted({len(truths) for truths in references})
    settings = [
        f"tokens={chosen} lowercase={'yes' if lowercase else 'no'} items={len(items)}:{asked}",
        f"references={sizes[0]}" if len(sizes) == 1 else f"references={sizes[0]}-{sizes[-1]}",
        *(f"{key}={notes[key]}" for key in names if key not in left_out),
    ]
    signature = f"caprag={package_version()} {' '.join(settings)} bootstrap={samples} seed={seed}"
    reports = {
        metric: Report(metric, t.value, t.interval(samples=samples, seed=seed), f"metric={metric} {signature}")
        for metric, t in totals.items()
    }
    return TextReport(
        name, items, {metric: t.values for metric, t in totals.items()}, reports, left_out, signature,
        hash_of(settings), samples, seed, totals,
    )  # fmt: skip


def _wanted(metrics: Sequence[str] | None, *, with_model: bool) -> dict[str, set[str]]:
    """Return the metrics that are asked for, in the order of the report, each with its figures."""
    if metrics is None:
        metrics = (*METRICS, "bertscore") if with_model else METRICS
    of = {figure: key for key, figures in FIGURES.items() for figure in figures}
    for metric in metrics:
        if metric not in FIGURES and metric not in of:
            raise ValueError(f"metric is {metric!r}; known are {', '.join(FIGURES)}, and single figures such as bleu-4")
    if not metrics:
        raise ValueError(f"no metric is asked for; known are {', '.join(FIGURES)}")
    return {
        key: {figure for figure in figures if key in metrics or figure in metrics}
        for key, figures in FIGURES.items()
        if key in metrics or any(figure in metrics for figure in figures)
    }


def _check(candidates: Sequence[str], references: Sequence[Sequence[str]], ids: Sequence[str] | None) -> None:
    if isinstance(candidates, str) or isinstance(references, str):
        raise TypeError("candidates or references is a text; a list of texts, and a list of lists of them, are wanted")
    if len(candidates) != len(references) or (ids is not None and len(ids) != len(candidates)):
        named = "" if ids is None else f" and {len(ids)} ids"
        raise ValueError(
            f"there are {len(candidates)} candidates, {len(references)} references{named}; they must be as many"
        )
    if not candidates:
        raise ValueError("there is no candidate; at least one is needed")
    for number, truths in enumerate(references):
        if isinstance(truths, str):
            raise TypeError(f"references of item {number} are the text {truths!r}; a list of texts is wanted")
        if not truths:
            raise ValueError(f"item {number} has no reference; at least one is needed")


def _reason(key: str, items: int, tokenizer: Tokenizer) -> str | None:
    """Say why a metric can't be measured, or None."""
    if key == "cider" and items < 2:
        return "what is rare is told by several items; there is one"
    if key == "spice" and tokenizer in ("characters", "zh"):
        return "it parses English alone; the texts are taken as Chinese"
    if key == "sacrebleu":
        try:
            require("sacrebleu", "eval")
        except MissingDependencyError as error:
            return str(error)
    if key == "meteor" or key == "spice":
        return java.absent("meteor" if key == "meteor" else "spice")
    return None


def _sums(counts: Array, score: Callable[[Array], Array]) -> Totals:
    return Totals(counts, score, tuple(score(counts).tolist()))


def _error_rate(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Totals:
    counts = _nearest(candidates, references, "letters")
    if not counts[:, 1].any():
        raise ValueError("the references have no letter or digit; leave out cer")
    # By itself, an item without a character counts as `ErrorCounts.mean_cer` says.
    single = tuple(float(e / n) if n else float(e > 0) for e, n in counts.tolist())
    return Totals(counts, _rate, single, higher=False)


def _rate(sums: Array) -> Array:
    edits, length = sums.T
    return np.asarray(np.divide(edits, length, out=np.full_like(edits, np.nan), where=length > 0))


def _nearest(candidates: Sequence[str], references: Sequence[Sequence[str]], characters: Characters) -> Array:
    """Count edits and reference characters, shape (items, 2), against the nearest reference; of equals the longest."""
    owners = [i for i, truths in enumerate(references) for _ in truths]
    counts = count_errors(
        [candidates[i] for i in owners], [text for truths in references for text in truths], characters=characters
    )
    best: dict[int, tuple[int, int]] = {}
    for owner, edits, length in zip(owners, counts.edits, counts.lengths, strict=True):
        best[owner] = min(best.get(owner, (edits, -length)), (edits, -length))
    return np.array([(edits, -length) for _, (edits, length) in sorted(best.items())], np.float64)
