"""From raw text to sentences, in document order.

What only reading needs loads at once, the rest on first use: NumPy comes with it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from caprag.corpus.files import SUFFIXES, decode_lines, list_files
from caprag.corpus.reading import read_corpus, read_rows
from caprag.corpus.splitting import split_caption

if TYPE_CHECKING:
    from caprag.corpus.characters import CharacterSet, character_set
    from caprag.corpus.cleaning import CaptionRules
    from caprag.corpus.preparation import PreparationReport, prepare_corpus
    from caprag.corpus.statistics import CorpusStatistics, corpus_statistics, draw_statistics

__all__ = [
    "SUFFIXES",
    "CaptionRules",
    "CharacterSet",
    "CorpusStatistics",
    "PreparationReport",
    "character_set",
    "corpus_statistics",
    "decode_lines",
    "draw_statistics",
    "list_files",
    "prepare_corpus",
    "read_corpus",
    "read_rows",
    "split_caption",
]

_LATER = {
    "CaptionRules": "cleaning",
    "CharacterSet": "characters",
    "CorpusStatistics": "statistics",
    "PreparationReport": "preparation",
    "character_set": "characters",
    "corpus_statistics": "statistics",
    "draw_statistics": "statistics",
    "prepare_corpus": "preparation",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"caprag.corpus.{_LATER[name]}"), name)
    globals()[name] = value
    return value
