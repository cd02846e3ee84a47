"""Figures: counts first, rates read off them."""

from caprag.evaluation.captions import Outcomes, count_outcomes
from caprag.evaluation.metrics import ErrorCounts, bootstrap, cer, cer_report, count_errors, mean_edits

__all__ = ["ErrorCounts", "Outcomes", "bootstrap", "cer", "cer_report", "count_errors", "count_outcomes", "mean_edits"]
