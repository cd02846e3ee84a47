"""Training of the shipped reader: damaged lines, the tower's features of them, and the loop."""

from caprag.training.reader.features import FeatureStore, make_features
from caprag.training.reader.initial import ReaderSize, new_reader
from caprag.training.reader.lines import CaptionLines, DamageMix
from caprag.training.reader.loop import ReaderOptions, train_reader

__all__ = [
    "CaptionLines",
    "DamageMix",
    "FeatureStore",
    "ReaderOptions",
    "ReaderSize",
    "make_features",
    "new_reader",
    "train_reader",
]
