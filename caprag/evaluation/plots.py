"""Curves with their intervals, in panels side by side: over rank, over noise, over the size of the corpus.

The one place in evaluation that draws.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from caprag.errors import CapragError, require
from caprag.evaluation.ladder import reliability
from caprag.evaluation.ranking import Metric
from caprag.evaluation.retrieval import Task
from caprag.evaluation.sweep import Cell
from caprag.paths import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by most colour-blind readers; the markers tell them apart in print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_COLUMNS = 3
_RANKS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a plot; all tuples have one entry a point.

    Attributes
    ----------
    name
        What the legend says; curves of one name look alike in all panels.
    x, y
        The points, x ascending.
    low, high
        Lower and upper end of each point's interval.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def draw_curves(
    panels: Sequence[tuple[str, Sequence[Curve]]],
    path: str | PathLike[str],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    log: bool = False,
) -> None:
    """Draw curves in panels with common axes; the band about each is its interval.

    Parameters
    ----------
    panels
        Title and curves of each, at least one.
    path
        Picture to write, png.
    x_label, y_label, title
        What is drawn; in letters that the common fonts have.
    log
        Whether the x axis is logarithmic.

    Raises
    ------
    MissingDependencyError
        Where matplotlib is not installed.
    CapragError
        Where the suffix is another.
    ValueError
        Where there is no panel.
    OSError
        Where the file can't be written.
    """
    require("matplotlib", "eval")
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    path = Path(path)
    if path.suffix.lower() != ".png":
        raise CapragError(f"{path}: has the suffix {path.suffix!r}; draw to .png")
    if not panels:
        raise ValueError("panels is empty; at least one is needed")
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    names = list(dict.fromkeys(curve.name for _, curves in panels for curve in curves))
    # A figure without pyplot: nothing global, no display.
    figure = Figure(figsize=(1.6 + 4.2 * columns, 3.4 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (heading, curves) in zip(grid, panels, strict=False):
        for curve in curves:
            look = names.index(curve.name)
            colour, marker = _COLOURS[look % len(_COLOURS)], _MARKERS[look % len(_MARKERS)]
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
            # Where curves lie on each other, the first that was named is seen, and the markers of the others about it.
            axes.plot(
                curve.x, curve.y, color=colour, marker=marker, markersize=4 + 0.6 * look, linewidth=1.4,
                label=curve.name, zorder=3 - look / len(names),
            )  # fmt: skip
        if log:
            axes.set_xscale("log")
        ticks = sorted({x for _, each in panels for curve in each for x in curve.x})
        if len(ticks) <= 10:
            axes.set_xticks(ticks, [f"{tick:g}" if tick < 1000 else f"{tick:,.0f}" for tick in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(heading, fontsize=10)
        axes.grid(visible=True, alpha=0.3)
        axes.label_outer()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel(x_label, fontsize=10)
    figure.supylabel(y_label, fontsize=10)
    if title:
        figure.suptitle(title, fontsize=11)
    handles = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend([handles[name] for name in names], names, loc="outside right center", frameon=False, fontsize=9)
    _write(figure, Path(path))


def draw_sweep(
    measured: Sequence[tuple[Cell, Task]],
    metrics: Sequence[Metric],
    path: str | PathLike[str],
    *,
    depth: int,
    samples: int = 1000,
    seed: int = 0,
) -> list[Path]:
    """Draw recall over rank, and a metric over noise and over corpus size where there are several.

    Parameters
    ----------
    measured
        Cells and the tasks that they were measured on.
    metrics
        The first recall among them, else the first, is drawn over noise and size.
    path
        ``NAME.png``: the pictures are ``NAME-k.png``, ``NAME-noise.png`` and ``NAME-size.png``.
    depth
        How many sentences were asked for, >= 1.
    samples, seed
        Of the intervals.

    Returns
    -------
    list of pathlib.Path
        What was drawn.

    Raises
    ------
    MissingDependencyError, CapragError, OSError
        As `draw_curves` does.
    """
    path = Path(path)
    chosen = next((metric for metric in metrics if metric.name == "recall"), metrics[0])
    ranks = tuple(rank for rank in _RANKS if rank <= depth)
    sizes = sorted({cell.size for cell, _ in measured})
    noises = sorted({-1.0 if cell.noise is None else cell.noise for cell, _ in measured})
    drawn = []

    def beside(name: str) -> Path:
        drawn.append(path.with_name(f"{path.stem}-{name}{path.suffix}"))
        return drawn[-1]

    def at(size: int | None, noise: float | None) -> dict[str, list[tuple[Cell, Task]]]:
        found: dict[str, list[tuple[Cell, Task]]] = {}
        for cell, task in measured:
            if size in (None, cell.size) and noise in (None, -1.0 if cell.noise is None else cell.noise):
                found.setdefault(cell.system, []).append((cell, task))
        return found

    def over(found: dict[str, list[tuple[Cell, Task]]], key: str) -> list[Curve]:
        curves = []
        for name, cells in found.items():
            points = []
            for cell, task in cells:
                figure = cell.report(task, [chosen], samples=samples, seed=seed)[str(chosen)]
                points.append((float(getattr(cell, key)), figure.value, *figure.interval))
            curves.append(_curve(name, sorted(points)))
        return curves

    if len(ranks) > 1:
        wanted = [Metric("recall", rank) for rank in ranks]
        panels = []
        for noise in noises:
            curves = []
            for name, ((cell, task), *_) in at(sizes[-1], noise).items():
                reports = cell.report(task, wanted, samples=samples, seed=seed).reports.values()
                curves.append(
                    _curve(name, [(rank, r.value, *r.interval) for rank, r in zip(ranks, reports, strict=True)])
                )
            panels.append(("" if noise < 0 else f"noise {noise:g}", curves))
        draw_curves(panels, beside("k"), x_label="k", y_label="recall@k", title=f"{sizes[-1]:,} sentences", log=True)
    if len(noises) > 1:
        panels = [(f"{size:,} sentences", over(at(size, None), "noise")) for size in sizes]
        draw_curves(panels, beside("noise"), x_label="character error rate of the queries", y_label=str(chosen))
    if len(sizes) > 1:
        panels = [("" if noise < 0 else f"noise {noise:g}", over(at(None, noise), "size")) for noise in noises]
        draw_curves(panels, beside("size"), x_label="sentences", y_label=str(chosen), log=True)
    return drawn


def _curve(name: str, points: Sequence[tuple[float, float, float, float]]) -> Curve:
    x, y, low, high = (tuple(column) for column in zip(*points, strict=True))
    return Curve(name, x, y, low, high)


def draw_decisions(answers: Sequence[tuple[str, npt.ArrayLike, npt.ArrayLike]], path: str | PathLike[str]) -> None:
    """Draw how well answers know when they are right: a reliability diagram, and risk over coverage.

    Parameters
    ----------
    answers
        Name, confidence of each answer, whether it is right.
    path
        Picture to write, png.

    Raises
    ------
    MissingDependencyError
        Where matplotlib is not installed.
    OSError
        Where the file can't be written.
    """
    require("matplotlib", "plot")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    for number, (name, confidence, good) in enumerate(answers):
        colour = _COLOURS[number % len(_COLOURS)]
        counts, stated, came = reliability(confidence, good)
        some = counts > 0
        left.scatter(stated[some], came[some], s=12 + 60 * counts[some] / counts.max(), color=colour, label=name)
        order = np.argsort(-np.asarray(confidence, float), kind="stable")
        wrong = np.cumsum(~np.asarray(good, bool)[order])
        taken = np.arange(1, len(order) + 1)
        right.plot(taken / len(order), wrong / taken, color=colour, label=name)
    left.set(xlabel="stated confidence", ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02))
    right.set(xlabel="coverage: share of the surest answers", ylabel="risk: share of these that is wrong")
    right.set_ylim(bottom=0)
    left.legend(frameon=False)
    for axes in (left, right):
        axes.grid(visible=True, alpha=0.3)
    _write(figure, Path(path))


def _write(figure: Figure, path: Path) -> None:
    drawn = io.BytesIO()
    # No version in the file: the same figures, the same bytes.
    figure.savefig(drawn, format="png", dpi=130, metadata={"Software": None})
    with replacing(path) as stream:
        stream.write(drawn.getvalue())
