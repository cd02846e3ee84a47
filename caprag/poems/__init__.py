"""Poems: from a picture or plain words to the verse."""

from caprag.poems.corpus import PoemReport, Unit, make_verses
from caprag.poems.finder import PoemFinder, Verse
from caprag.poems.reading import Poem, VersePair, read_poems, write_training

__all__ = [
    "Poem", "PoemFinder", "PoemReport", "Unit", "Verse", "VersePair", "make_verses", "read_poems", "write_training",
]  # fmt: skip
