"""Training of the shipped reader: damaged lines, a tower that gets used to them, its features, and the loop."""

from caprag.training.reader.features import make_features, make_maps, make_pixels
from caprag.training.reader.initial import ReaderSize, new_reader
from caprag.training.reader.lines import CaptionLines, DamageMix
from caprag.training.reader.loop import ReaderOptions, train_reader
from caprag.training.reader.stores import LineStore
from caprag.training.reader.tuning import TuningOptions, tune_tower

__all__ = [
    "CaptionLines",
    "DamageMix",
    "LineStore",
    "ReaderOptions",
    "ReaderSize",
    "TuningOptions",
    "make_features",
    "make_maps",
    "make_pixels",
    "new_reader",
    "train_reader",
    "tune_tower",
]
