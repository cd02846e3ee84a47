"""What an evaluation of texts hands back: figures with intervals, values of every item, and what reproduces them.

Knows figures by name; how they are made is said by the signature alone.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from caprag.errors import CapragError
from caprag.evaluation.report import Comparison
from caprag.evaluation.texts.totals import Totals, paired_test_of_totals
from caprag.paths import replacing
from caprag.types import Report


@dataclass(frozen=True, slots=True)
class TextReport:
    """Evaluated texts.

    Attributes
    ----------
    name
        What was evaluated.
    items
        Their ids.
    values
        Metric to its values, one an item.
    reports
        Metric to its figure over all items, 95 % interval and signature.
    left_out
        Metric that could not be measured to the reason.
    signature
        What is needed to measure it again.
    task
        A hash of the references and of how they are compared; reports of one task can be compared.
    samples, seed
        Of the resampling.
    totals
        Metric to what it is made of.
    """

    name: str
    items: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]
    reports: Mapping[str, Report]
    left_out: Mapping[str, str]
    signature: str
    task: str
    samples: int
    seed: int
    totals: Mapping[str, Totals] = field(repr=False, compare=False)

    def __getitem__(self, metric: str) -> Report:
        """Return the figure of a metric; KeyError where it was not measured."""
        return self.reports[metric]

    def compare(self, other: TextReport, *, samples: int = 10000) -> tuple[Comparison, ...]:
        """Compare with another system on the same items, metric by metric.

        Parameters
        ----------
        other
            A report over the same items and references, with the same metrics.
        samples
            See `caprag.evaluation.texts.totals.paired_test_of_totals`; its seed is the report's.

        Raises
        ------
        ValueError
            Where the references, the settings or the metrics are others.
        """
        if self.task != other.task:
            raise ValueError(f"the tasks are {self.task} and {other.task}; the same references and settings are wanted")
        if self.totals.keys() != other.totals.keys():
            raise ValueError(
                f"the metrics are {', '.join(self.totals)} and {', '.join(other.totals)}; measure the same"
            )
        return tuple(
            Comparison(
                metric, self[metric].value, other[metric].value,
                paired_test_of_totals(totals, other.totals[metric], samples=samples, seed=self.seed),
            )
            for metric, totals in self.totals.items()
        )  # fmt: skip

    def save(self, path: str | PathLike[str]) -> None:
        """Write the figures: ``.json`` with all else that is known, or ``.csv`` with a row a metric.

        Raises
        ------
        CapragError
            For another suffix.
        OSError
            Where the file can't be written.
        """
        path = Path(path)
        rows: list[dict[str, object]] = [
            {"metric": name, "value": r.value, "low": r.interval[0], "high": r.interval[1]}
            for name, r in self.reports.items()
        ]
        if path.suffix.lower() == ".csv":
            _write(path, _csv(rows, ["metric", "value", "low", "high"]))
        elif path.suffix.lower() == ".json":
            content = {
                "name": self.name, "items": len(self.items), "figures": rows, "left_out": dict(self.left_out),
                "task": self.task, "signature": self.signature,
            }  # fmt: skip
            _write(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
        else:
            raise CapragError(f"{path}: has the suffix {path.suffix!r}; write figures to .json or .csv")

    def save_items(self, path: str | PathLike[str], *, texts: Sequence[str] | None = None) -> None:
        """Write the values of every item, a row each: ``.jsonl`` or ``.csv``.

        Parameters
        ----------
        path
            The file.
        texts
            What to show of each item, as many as there are; ``None`` for nothing.

        Raises
        ------
        CapragError
            For another suffix.
        OSError
            Where the file can't be written.
        """
        path = Path(path)
        rows = [
            {"id": item, **({} if texts is None else {"text": texts[i]}),
             **{metric: values[i] for metric, values in self.values.items()}}
            for i, item in enumerate(self.items)
        ]  # fmt: skip
        if path.suffix.lower() == ".csv":
            _write(path, _csv(rows, list(rows[0])))
        elif path.suffix.lower() == ".jsonl":
            _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        else:
            raise CapragError(f"{path}: has the suffix {path.suffix!r}; write items to .jsonl or .csv")

    def __str__(self) -> str:
        rows = [
            f"{name:<14}{r.value:.4f} [{r.interval[0]:.4f}, {r.interval[1]:.4f}]" for name, r in self.reports.items()
        ]
        left = [f"{name:<14}left out: {reason}" for name, reason in self.left_out.items()]
        return "\n".join([*rows, *left, self.signature])


def _csv(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write(text.encode("utf-8", "replace"))
