"""From raw text to sentences, in document order."""

from caprag.corpus.characters import CharacterSet, character_set
from caprag.corpus.cleaning import CaptionRules
from caprag.corpus.files import SUFFIXES, decode_lines, list_files
from caprag.corpus.preparation import PreparationReport, prepare_corpus
from caprag.corpus.reading import read_corpus, read_rows
from caprag.corpus.splitting import split_caption
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
