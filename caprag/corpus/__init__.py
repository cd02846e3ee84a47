"""From text files to sentences, in document order."""

from caprag.corpus.files import SUFFIXES, decode_lines, list_files
from caprag.corpus.reading import read_corpus, read_rows

__all__ = ["SUFFIXES", "decode_lines", "list_files", "read_corpus", "read_rows"]
