"""Reads the captions burnt into TV pictures and snaps each to the sentence that was meant.

The public names load on first use, so that importing caprag costs next to nothing::

    import caprag

    index = caprag.Index.build(caprag.read_corpus("scripts/*.srt"), caprag.load_embedder())
    caption = caprag.Pipeline(index).read("frame.png")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caprag.corpus import prepare_corpus as prepare_corpus
    from caprag.corpus import read_corpus as read_corpus
    from caprag.errors import CapragError as CapragError
    from caprag.errors import CorpusError as CorpusError
    from caprag.errors import FontError as FontError
    from caprag.errors import FrameError as FrameError
    from caprag.errors import IndexFolderError as IndexFolderError
    from caprag.errors import MissingDependencyError as MissingDependencyError
    from caprag.errors import ModelError as ModelError
    from caprag.errors import SynthesisError as SynthesisError
    from caprag.evaluation import ErrorCounts as ErrorCounts
    from caprag.evaluation import cer as cer
    from caprag.evaluation import count_errors as count_errors
    from caprag.evaluation import mean_edits as mean_edits
    from caprag.evaluation.report import RetrievalReport as RetrievalReport
    from caprag.evaluation.retrieval import evaluate_retrieval as evaluate_retrieval
    from caprag.evaluation.texts import TextReport as TextReport
    from caprag.evaluation.texts import evaluate_text as evaluate_text
    from caprag.noise import NoiseChannel as NoiseChannel
    from caprag.pipeline import Pipeline as Pipeline
    from caprag.poems import PoemFinder as PoemFinder
    from caprag.poems import make_verses as make_verses
    from caprag.poems import read_poems as read_poems
    from caprag.recognition import RapidOCRRecognizer as RapidOCRRecognizer
    from caprag.recognition import VLMRecognizer as VLMRecognizer
    from caprag.recognition import load_recognizer as load_recognizer
    from caprag.recognition import open_frame as open_frame
    from caprag.reranking import Kept as Kept
    from caprag.reranking import Reranker as Reranker
    from caprag.reranking.cross_encoder import load_cross_encoder as load_cross_encoder
    from caprag.retrieval import Index as Index
    from caprag.retrieval import load_embedder as load_embedder
    from caprag.synthesis.backgrounds import Backgrounds as Backgrounds
    from caprag.synthesis.dataset import CaptionPictures as CaptionPictures
    from caprag.synthesis.fonts import load_fonts as load_fonts
    from caprag.synthesis.generator import Synthesizer as Synthesizer
    from caprag.synthesis.recipe import Recipe as Recipe
    from caprag.synthesis.run import Sentences as Sentences
    from caprag.synthesis.run import synthesize as synthesize
    from caprag.text import convert as convert
    from caprag.text import match_form as match_form
    from caprag.text import normalize as normalize
    from caprag.training import mine_negatives as mine_negatives
    from caprag.training import train_embedder as train_embedder
    from caprag.types import Caption as Caption
    from caprag.types import Embedder as Embedder
    from caprag.types import Hit as Hit
    from caprag.types import Hypothesis as Hypothesis
    from caprag.types import Recognizer as Recognizer
    from caprag.types import Report as Report
    from caprag.types import Segment as Segment
    from caprag.types import Sentence as Sentence

__version__ = "0.1.0"

_NAMES = {
    "Backgrounds": "synthesis.backgrounds",
    "CapragError": "errors",
    "Caption": "types",
    "CaptionPictures": "synthesis.dataset",
    "CorpusError": "errors",
    "Embedder": "types",
    "ErrorCounts": "evaluation",
    "FontError": "errors",
    "FrameError": "errors",
    "Hit": "types",
    "Hypothesis": "types",
    "Index": "retrieval",
    "IndexFolderError": "errors",
    "Kept": "reranking",
    "MissingDependencyError": "errors",
    "ModelError": "errors",
    "NoiseChannel": "noise",
    "Pipeline": "pipeline",
    "PoemFinder": "poems",
    "RapidOCRRecognizer": "recognition",
    "Recipe": "synthesis.recipe",
    "Recognizer": "types",
    "Report": "types",
    "Reranker": "reranking",
    "RetrievalReport": "evaluation.report",
    "Segment": "types",
    "Sentence": "types",
    "Sentences": "synthesis.run",
    "SynthesisError": "errors",
    "Synthesizer": "synthesis.generator",
    "TextReport": "evaluation.texts",
    "VLMRecognizer": "recognition",
    "cer": "evaluation",
    "convert": "text",
    "count_errors": "evaluation",
    "evaluate_retrieval": "evaluation.retrieval",
    "evaluate_text": "evaluation.texts",
    "load_cross_encoder": "reranking.cross_encoder",
    "load_embedder": "retrieval",
    "load_fonts": "synthesis.fonts",
    "load_recognizer": "recognition",
    "make_verses": "poems",
    "match_form": "text",
    "mean_edits": "evaluation",
    "mine_negatives": "training",
    "normalize": "text",
    "open_frame": "recognition",
    "prepare_corpus": "corpus",
    "read_corpus": "corpus",
    "read_poems": "poems",
    "synthesize": "synthesis.run",
    "train_embedder": "training",
}

__all__ = sorted([*_NAMES, "__version__"])


def __getattr__(name: str) -> object:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"caprag.{_NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
