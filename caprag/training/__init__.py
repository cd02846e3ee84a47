"""Making models: splits, hard negatives, embedders.

The names load on first use: what they need is heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caprag.training.captioner import CaptionerOptions, train_captioner
    from caprag.training.embedder import TrainedEmbedder, TrainingOptions, train_embedder
    from caprag.training.negatives import MiningOptions, MiningReport, mine_negatives
    from caprag.training.pairs import Pair, noisy_pairs, read_pairs
    from caprag.training.pretraining import PretrainingOptions, pretrain_embedder
    from caprag.training.readings import VariedNoise
    from caprag.training.recognizer import Recipe, RecognizerOptions, TrainedRecognizer, train_recognizer
    from caprag.training.saving import save_embedder
    from caprag.training.scratch import Architecture, new_encoder
    from caprag.training.split import Split, split_sentences

__all__ = [
    "Architecture",
    "CaptionerOptions",
    "MiningOptions",
    "MiningReport",
    "Pair",
    "PretrainingOptions",
    "Recipe",
    "RecognizerOptions",
    "Split",
    "TrainedEmbedder",
    "TrainedRecognizer",
    "TrainingOptions",
    "VariedNoise",
    "mine_negatives",
    "new_encoder",
    "noisy_pairs",
    "pretrain_embedder",
    "read_pairs",
    "save_embedder",
    "split_sentences",
    "train_captioner",
    "train_embedder",
    "train_recognizer",
]

_HOMES = {
    "Architecture": "scratch",
    "CaptionerOptions": "captioner",
    "MiningOptions": "negatives",
    "MiningReport": "negatives",
    "Pair": "pairs",
    "PretrainingOptions": "pretraining",
    "Recipe": "recognizer",
    "RecognizerOptions": "recognizer",
    "Split": "split",
    "TrainedEmbedder": "embedder",
    "TrainedRecognizer": "recognizer",
    "TrainingOptions": "embedder",
    "VariedNoise": "readings",
    "mine_negatives": "negatives",
    "new_encoder": "scratch",
    "noisy_pairs": "pairs",
    "pretrain_embedder": "pretraining",
    "read_pairs": "pairs",
    "save_embedder": "saving",
    "split_sentences": "split",
    "train_captioner": "captioner",
    "train_embedder": "embedder",
    "train_recognizer": "recognizer",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"caprag.training.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
