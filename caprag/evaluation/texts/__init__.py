"""Generated texts against references: the metrics of captioning and of reading."""

from caprag.evaluation.texts.evaluate import FIGURES, METRICS, evaluate_text
from caprag.evaluation.texts.reading import match_texts, read_texts
from caprag.evaluation.texts.report import TextReport

__all__ = ["FIGURES", "METRICS", "TextReport", "evaluate_text", "match_texts", "read_texts"]
