"""Texts to tokens, before anything is compared.

Chinese has no spaces: its texts are scored character by character. Knows nothing of metrics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from caprag.errors import require
from caprag.evaluation.texts.java import ptb_tokenize
from caprag.text import countable

Tokenizer = Literal["characters", "words", "13a", "zh", "ptb"]
"""``"characters"``: each character of `caprag.text.normalize` but white space; ``"words"``: parted by white space, as
they stand; ``"13a"`` and ``"zh"``: sacreBLEU's for Western languages, and for Chinese with Latin words whole;
``"ptb"``: Penn Treebank's, lower-case, without punctuation, as pycocoevalcap does it with Java."""

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")


def choose_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Return ``"characters"`` where most letters are Han characters, else ``"13a"``.

    Examples
    --------
    >>> choose_tokenizer(["一隻貓 OK", "兩隻狗"]), choose_tokenizer(["a cat", "貓"])
    ('characters', '13a')
    """
    letters = han = 0
    for text in texts:
        counted = countable(text, "letters")
        letters += len(counted)
        han += len(_HAN.findall(counted))
    return "characters" if 2 * han > letters else "13a"


def check_tokenizer(name: str) -> None:
    """Raise ValueError unless the name is ``"auto"`` or a `Tokenizer`."""
    if name not in ("auto", *get_args(Tokenizer)):
        raise ValueError(f"tokenize is {name!r}; known are auto, {', '.join(get_args(Tokenizer))}")


def split_texts(texts: Sequence[str], tokenizer: Tokenizer, *, lowercase: bool = False) -> list[list[str]]:
    """Split texts into tokens.

    Parameters
    ----------
    texts
        Any strings.
    tokenizer
        How.
    lowercase
        Whether case is dropped first.

    Returns
    -------
    list of list of str
        As many, the tokens of each; without white space, none empty.

    Raises
    ------
    ValueError
        For an unknown tokenizer.
    MissingDependencyError
        For ``"13a"`` and ``"zh"`` without sacrebleu, for ``"ptb"`` without pycocoevalcap or Java.

    Examples
    --------
    >>> split_texts(["一隻貓。", "OK 啦"], "characters")
    [['一', '隻', '貓', '。'], ['O', 'K', '啦']]
    """
    if lowercase:
        texts = [text.lower() for text in texts]
    if tokenizer == "characters":
        return [list(countable(text, "all")) for text in texts]
    if tokenizer == "words":
        return [text.split() for text in texts]
    if tokenizer == "ptb":
        return ptb_tokenize(texts)
    if tokenizer not in ("13a", "zh"):
        raise ValueError(f"tokenizer is {tokenizer!r}; known are {', '.join(get_args(Tokenizer))}")
    require("sacrebleu", "eval")
    from sacrebleu.metrics.bleu import BLEU

    split = BLEU(tokenize=tokenizer).tokenizer
    return [split(text.rstrip()).split() for text in texts]
