"""How far a long task has come: a bar where somebody looks on, else a line a minute.

Knows nothing of the tasks.
"""

from __future__ import annotations

import sys
from typing import IO

from tqdm import tqdm


class _Lines(tqdm):  # type: ignore[misc]
    """Writes lines where tqdm draws: at the same moments, but not at the start."""

    disable: bool

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:  # noqa: ARG002
        """Write a line, once something was counted."""
        if self.n == self.initial:
            return False
        values = self.format_dict
        known, elapsed = self.total is not None, values["elapsed"]
        rate = (self.n - self.initial) / elapsed if elapsed else 0.0
        parts = [f"{self.desc}: {self.n}{f' of {self.total}' if known else ''}{self.unit}"]
        if known and self.total:
            parts[0] += f" ({100 * self.n / self.total:.1f} %)"
        parts += [f"{rate:.3g}{self.unit}/s", f"{self.format_interval(elapsed)} so far"]
        if known and rate:
            parts.append(f"{self.format_interval(max(0, self.total - self.n) / rate)} left")
        self.fp.write(", ".join(parts) + "\n")
        self.fp.flush()
        return True

    def close(self) -> None:
        """End with a line where one was written before."""
        written = self.last_print_t > self.start_t
        if not self.disable and written and self.n != self.last_print_n:
            self.display()
        self.disable = True
        with self._lock:
            self._decr_instances(self)


def progress_bar(
    total: int | None,
    desc: str,
    unit: str,
    *,
    initial: int = 0,
    show: bool = True,
    file: IO[str] | None = None,
    seconds: float = 60.0,
) -> tqdm[None]:
    """Return a progress bar on a terminal, or what writes plain lines where the output is none.

    A log file gets whole lines: at most one in so many seconds, each when work is counted, and one at the end where
    there was any before it. So a short task leaves none. The rate and what is left go by this run's mean.

    Parameters
    ----------
    total
        How many there are; ``None`` where that is not known.
    desc, unit
        What is being done, and to what, as tqdm takes them: ``"read"`` and ``" frames"``.
    initial
        How many were there before.
    show
        False for neither bar nor lines.
    file
        Where to; ``None`` is stderr.
    seconds
        Between two lines, >= 0.

    Returns
    -------
    tqdm.tqdm
        To be closed, or used as a context; ``update(n)`` counts on.

    Examples
    --------
    >>> with progress_bar(3, "read", " frames", file=sys.stdout, seconds=0) as bar:
    ...     done = bar.update(3)  # doctest: +ELLIPSIS
    read: 3 of 3 frames (100.0 %), ... frames/s, 00:00 so far, 00:00 left
    """
    stream = sys.stderr if file is None else file
    if not show or stream.isatty():
        return tqdm(total=total, initial=initial, desc=desc, unit=unit, disable=not show, file=stream)
    return _Lines(
        total=total, initial=initial, desc=desc, unit=unit, file=stream,
        # Asked at each update, so that a slow stretch after a quick one is told of too; no thread looks after it.
        mininterval=seconds, maxinterval=0, miniters=0,
    )  # fmt: skip
