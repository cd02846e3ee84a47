"""Progress: a bar on a terminal, whole lines in a log."""

from __future__ import annotations

import io
import re
import time

import pytest

from caprag.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_whole_lines() -> None:
    log = io.StringIO()
    with progress_bar(40, "synth", " pictures", initial=20, file=log, seconds=0.05) as bar:
        assert log.getvalue() == ""
        for _ in range(10):
            time.sleep(0.03)
            bar.update()
        bar.update(5)
    lines = log.getvalue().splitlines()
    pattern = r"synth: (\d+) of 40 pictures \(([\d.]+) %\), ([\d.e+]+) pictures/s, \d\d:\d\d so far, \d\d:\d\d left"
    found = [match for line in lines if (match := re.fullmatch(pattern, line))]
    assert len(found) == len(lines)
    # One in 0.05 s of at least 0.3, and the last.
    assert 2 <= len(lines) <= 12
    counts = [int(match[1]) for match in found]
    assert counts == sorted(set(counts))
    assert counts[0] > 20
    assert counts[-1] == 35
    assert [float(match[2]) for match in found] == [count * 2.5 for count in counts]
    # What was there before is not this run's work.
    assert float(found[-1][3]) < 15 / 0.3
    assert "\r" not in log.getvalue()
    assert "\x1b" not in log.getvalue()


def test_a_short_task_leaves_no_line() -> None:
    log = io.StringIO()
    with progress_bar(1000, "read", " frames", file=log) as bar:
        for _ in range(1000):
            bar.update()
    assert log.getvalue() == ""


def test_an_unknown_total() -> None:
    log = io.StringIO()
    with progress_bar(None, "index", " sentences", file=log, seconds=0) as bar:
        bar.update(7)
    assert re.fullmatch(r"index: 7 sentences, \S+ sentences/s, 00:00 so far\n", log.getvalue())


def test_a_failure_tells_how_far_it_came() -> None:
    log = io.StringIO()
    with pytest.raises(OSError, match="full"), progress_bar(9, "synth", "", file=log, seconds=0.01) as bar:  # noqa: PT012
        time.sleep(0.02)
        bar.update(2)
        bar.update(3)
        raise OSError("full")
    assert log.getvalue().splitlines()[-1].startswith("synth: 5 of 9 (55.6 %)")


def test_a_terminal_gets_a_bar() -> None:
    screen = Terminal()
    with progress_bar(4, "read", " frames", file=screen) as bar:
        bar.update(4)
    assert screen.getvalue().startswith("\rread:   0%")
    assert "100%" in screen.getvalue()


@pytest.mark.parametrize("screen", [io.StringIO, Terminal])
def test_nothing_where_it_is_not_wanted(screen: type[io.StringIO]) -> None:
    stream = screen()
    with progress_bar(4, "read", " frames", show=False, file=stream, seconds=0) as bar:
        bar.update(4)
    assert stream.getvalue() == ""
