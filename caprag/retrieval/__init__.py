"""From readings to the sentences of a corpus that may have been meant."""

from caprag.retrieval.embedder import SentenceEmbedder, load_embedder
from caprag.retrieval.index import Index

__all__ = ["Index", "SentenceEmbedder", "load_embedder"]
