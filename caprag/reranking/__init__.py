"""From hypotheses and hits to captions: snap to a sentence, or keep the reading."""

from caprag.reranking.features import FEATURES
from caprag.reranking.fitting import Example, fit_reranker
from caprag.reranking.reranker import Reranker

__all__ = ["FEATURES", "Example", "Reranker", "fit_reranker"]
