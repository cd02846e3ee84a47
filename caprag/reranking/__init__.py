"""From hypotheses and hits to captions: snap to a sentence, or keep the reading."""

from caprag.reranking.examples import Episode, Example
from caprag.reranking.features import FEATURES
from caprag.reranking.fitting import fit_reranker
from caprag.reranking.kept import Kept
from caprag.reranking.reranker import Found, Reranker

__all__ = ["FEATURES", "Episode", "Example", "Found", "Kept", "Reranker", "fit_reranker"]
