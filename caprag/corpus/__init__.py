"""From text files to sentences, in document order."""

from caprag.corpus.files import SUFFIXES, list_files
from caprag.corpus.reading import read_corpus, read_rows

__all__ = ["SUFFIXES", "list_files", "read_corpus", "read_rows"]
