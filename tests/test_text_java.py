"""METEOR, SPICE and the PTB tokenizer: what needs Java is skipped without it, the formula never."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from caprag.errors import MissingDependencyError
from caprag.evaluation.texts import java

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="java is not installed")

REFERENCES = [
    ["a cat sits on the mat", "there is a cat on a mat"],
    ["two dogs are running over the grass"],
    ["a man rides a horse"],
    ["一 隻 貓 坐 在 地 上 。"],
    ["the old house"],
]
CANDIDATES = [
    "the cat is sitting on the mat", "two dogs run over grass", "a man rides a horse", "一 隻 貓 坐 在 樹 上 。",
    "zebra",
]  # fmt: skip
# What pycocoevalcap 1.2 with Java 17 says of them: the statistics that METEOR prints, the score of each, that of all.
STATISTICS = """\
7 6 4 3 2 2 2 2 0 0 0 0 0 0 0 0 1 1 1 0 1 6 5
5 7 2 4 2 2 2 2 0 0 0 0 0 0 0 0 1 1 0 1 2 5 6
5 5 2 2 3 3 2 2 0 0 0 0 0 0 0 0 0 0 0 0 1 5 5
8 8 0 0 7 7 0 0 0 0 0 0 0 0 0 0 0 0 0 0 2 7 7
1 3 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"""
SINGLE = [0.46677158611344255, 0.41426071704089296, 1.0, 0.4663554656856354, 0.0]
ALL = 0.4395195881077921


def counts() -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The statistics, with no chunk in the text that is matched whole."""
    table = np.array([[float(n) for n in line.split()] for line in STATISTICS.split("\n")])
    table[2, 20] = 0
    return table


def test_the_formula_is_that_of_meteor() -> None:
    assert java.meteor(counts()) == pytest.approx(SINGLE, abs=1e-12)
    assert java.meteor(counts().sum(axis=0, keepdims=True))[0] == pytest.approx(ALL, abs=1e-12)


@needs_java
def test_meteor_counts_as_pycocoevalcap_has_it_count() -> None:
    found = java.meteor_counts([c.split() for c in CANDIDATES], [[r.split() for r in group] for group in REFERENCES])
    assert np.array_equal(found, counts())


@needs_java
def test_words_are_those_of_pycocoevalcap() -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    lines = ["A cat's here.", "", 'Don\'t (go), "now": 3.5 km -- 我們走吧。', "", "The END"]
    theirs = PTBTokenizer().tokenize({i: [{"caption": line}] for i, line in enumerate(lines)})
    assert java.ptb_tokenize(lines) == [theirs[i][0].split() for i in range(len(lines))]


def test_what_is_absent_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "java is not found; install a Java runtime" in str(java.absent("meteor"))
    with pytest.raises(MissingDependencyError, match="ptb: java is not found"):
        java.ptb_tokenize(["a"])


@needs_java
def test_spice_says_which_model_it_lacks() -> None:
    reason = java.absent("spice")
    if reason is None:
        pytest.skip("the models of Stanford CoreNLP are installed")
    assert "stanford-corenlp-3.6.0.jar is not there; put it there from Stanford CoreNLP 3.6.0" in reason
    with pytest.raises(MissingDependencyError, match=r"spice: .* is not there"):
        java.spice([["a"]], [[["a"]]])


@needs_java
def test_spice_is_that_of_pycocoevalcap() -> None:
    if reason := java.absent("spice"):
        pytest.skip(reason)
    from pycocoevalcap.spice.spice import Spice

    truths, given = dict(enumerate(REFERENCES[:3])), {i: [c] for i, c in enumerate(CANDIDATES[:3])}
    _, scores = Spice().compute_score(truths, given)
    ours = java.spice([c.split() for c in CANDIDATES[:3]], [[r.split() for r in group] for group in REFERENCES[:3]])
    assert ours == pytest.approx([score["All"]["f"] for score in scores])
