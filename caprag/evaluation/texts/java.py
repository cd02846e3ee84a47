"""METEOR, SPICE and the PTB tokenizer: Java programs that pycocoevalcap brings, run as it runs them.

Nothing is downloaded: the models of Stanford CoreNLP that SPICE parses with are not in the package, and pycocoevalcap
fetches them at first use; here they must lie in its folder already. Knows tokens, not where they come from.

References
----------
Denkowski and Lavie, Meteor Universal: Language Specific Translation Evaluation for Any Target Language, WMT 2014
(formula, and the parameters of version 1.5 for English).
Anderson et al., SPICE: Semantic Propositional Image Caption Evaluation, ECCV 2016.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from caprag.errors import CapragError, MissingDependencyError, require
from caprag.evaluation.texts.overlap import Tokens
from caprag.evaluation.texts.totals import Array

Part = Literal["meteor", "spice", "ptb"]

_JARS = {
    "meteor": ("meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz"),
    "spice": ("spice/spice-1.0.jar", "spice/lib/stanford-corenlp-3.6.0.jar",
              "spice/lib/stanford-corenlp-3.6.0-models.jar"),
    "ptb": ("tokenizer/stanford-corenlp-3.4.1.jar",),
}  # fmt: skip
# Tokens that pycocoevalcap drops.
_PUNCTUATION = frozenset(("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:-;", "--", "..."))
# METEOR 1.5 for English: balance of precision and recall, shape and weight of the penalty, weight of content words;
# weights of exact, stem, synonym and paraphrase matches.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])


def absent(part: Part) -> str | None:
    """Say why a part can't run here, and what to do; None where it can."""
    try:
        folder = _folder()
    except MissingDependencyError as error:
        return str(error)
    if shutil.which("java") is None:
        return "java is not found; install a Java runtime, for example: apt-get install default-jre-headless"
    for jar in _JARS[part]:
        if not (folder / jar).is_file():
            return (
                f"{folder / jar} is not there; put it there from Stanford CoreNLP 3.6.0 "
                "(stanford-corenlp-full-2015-12-09.zip)"
                if part == "spice" and "corenlp" in jar
                else f"{folder / jar} is not there; install pycocoevalcap again"
            )
    return None


def meteor_counts(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Array:
    """Count what METEOR 1.5 is made of, with the options of pycocoevalcap: English, normalised.

    English stems, synonyms and paraphrases are matched; of other languages, equal tokens alone.

    Parameters
    ----------
    candidates
        One an item.
    references
        For each item at least one; the best is taken.

    Returns
    -------
    numpy.ndarray
        Shape (items, 23), float64: METEOR's own statistics, where a text that is matched whole has no chunk.

    Raises
    ------
    MissingDependencyError
        Without Java or pycocoevalcap.
    CapragError
        Where Java fails.
    """
    lines = [
        " ||| ".join(["SCORE", *(_line(truth) for truth in truths), _line(tokens)])
        for tokens, truths in zip(candidates, references, strict=True)
    ]
    jar = _needed("meteor") / _JARS["meteor"][0]
    answer = _run(["-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"], lines, jar.parent)
    try:
        table = np.array([[float(number) for number in line.split()] for line in answer], np.float64)
        if table.shape != (len(lines), 23):
            raise ValueError(f"{len(lines)} rows of 23 numbers are wanted, {table.shape} came")
    except ValueError as error:
        raise CapragError(f"{jar}: has not answered as METEOR 1.5 does ({error})") from None
    whole = (table[:, 20] == 1) & (table[:, 21] == table[:, 0]) & (table[:, 22] == table[:, 1])
    table[whole, 20] = 0
    return table


def meteor(counts: Array) -> Array:
    """Compute METEOR 1.5 for English.

    Parameters
    ----------
    counts
        Shape (rows, 23): sums of `meteor_counts`, or single items.

    Returns
    -------
    numpy.ndarray
        Shape (rows,), in [0, 1].
    """
    # By stage: content words of candidate and reference, then function words of both.
    stages = counts[:, 4:20].reshape(-1, 4, 4)
    sides = []
    for side in (0, 1):
        words, functions = counts[:, side], counts[:, 2 + side]
        matched = (_DELTA * stages[:, :, side] + (1 - _DELTA) * stages[:, :, 2 + side]) @ _WEIGHTS
        weight = _DELTA * (words - functions) + (1 - _DELTA) * functions
        sides.append(np.divide(matched, weight, out=np.zeros_like(matched), where=weight > 0))
    precision, recall = sides
    both = (1 - _ALPHA) * recall + _ALPHA * precision
    mean = np.divide(precision * recall, both, out=np.zeros_like(both), where=both > 0)
    matches = (counts[:, 21] + counts[:, 22]) / 2
    broken = np.divide(counts[:, 20], matches, out=np.zeros_like(matches), where=matches > 0)
    return np.asarray(mean * (1 - _GAMMA * broken**_BETA))


def spice(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[float]:
    """Compute SPICE of each item: what is said of which things, parsed from English.

    Parameters
    ----------
    candidates, references
        See `meteor_counts`.

    Returns
    -------
    list of float
        F measures, in [0, 1].

    Raises
    ------
    MissingDependencyError
        Without Java, pycocoevalcap, or the models of Stanford CoreNLP.
    CapragError
        Where Java fails, or gives no value for an item.
    """
    jar = _needed("spice") / _JARS["spice"][0]
    items = [
        {"image_id": number, "test": " ".join(tokens), "refs": [" ".join(truth) for truth in truths]}
        for number, (tokens, truths) in enumerate(zip(candidates, references, strict=True))
    ]
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "in.json"), Path(folder, "out.json")
        asked.write_text(json.dumps(items), encoding="utf-8")
        _run(["-Xmx8G", "-jar", str(jar), str(asked), "-out", str(answered), "-subset", "-silent"], [], jar.parent)
        if not answered.is_file():
            raise CapragError(f"{jar}: has ended without an answer")
        found = {row["image_id"]: row["scores"]["All"]["f"] for row in json.loads(answered.read_text("utf-8"))}
    scores = []
    for number in range(len(items)):
        value = found.get(number)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise CapragError(f"{jar}: gives {value!r} for item {number}, {items[number]['test']!r}; leave out spice")
        scores.append(float(value))
    return scores


def ptb_tokenize(texts: Sequence[str]) -> list[list[str]]:
    """Split texts as the Penn Treebank does, lower-cased and without punctuation: what COCO captions are scored on.

    Raises
    ------
    MissingDependencyError
        Without Java or pycocoevalcap.
    CapragError
        Where Java fails.
    """
    jar = _needed("ptb") / _JARS["ptb"][0]
    program = "edu.stanford.nlp.process.PTBTokenizer"
    lines = [" ".join(text.split()) for text in texts]
    answer = _run(["-cp", str(jar), program, "-preserveLines", "-lowerCase"], lines, jar.parent)
    if len(answer) != len(lines):
        raise CapragError(f"{jar}: has split {len(lines)} lines into {len(answer)}; choose another --tokenize")
    return [[token for token in line.split() if token not in _PUNCTUATION] for line in answer]


def _folder() -> Path:
    # A package without a module of its own: where it lies is all that is asked.
    return Path(next(iter(require("pycocoevalcap", "eval").__path__)))


def _needed(part: Part) -> Path:
    if reason := absent(part):
        raise MissingDependencyError(f"{part}: {reason}")
    return _folder()


def _line(tokens: Tokens) -> str:
    return " ".join(tokens).replace("|||", "")


def _run(arguments: Sequence[str], lines: Sequence[str], folder: Path) -> list[str]:
    """Run Java on lines and return those it answers."""
    text = "".join(line + "\n" for line in lines).encode("utf-8", "replace")
    done = subprocess.run(
        ["java", "-Dfile.encoding=UTF-8", *arguments], input=text, cwd=folder, capture_output=True, check=False
    )
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
        raise CapragError(f"java {' '.join(arguments)}: ended with status {done.returncode} ({reason})")
    answer = done.stdout.decode("utf-8", "replace").split("\n")
    return answer[:-1] if answer and not answer[-1] else answer
