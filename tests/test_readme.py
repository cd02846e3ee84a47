from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import caprag

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_the_examples_run(example: str) -> None:
    if "load_fonts" in example:
        try:
            caprag.load_fonts(sample=["妳在開玩笑嗎"])
        except caprag.FontError as error:
            pytest.skip(f"no font for Chinese is installed: {error}")
    done = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_file_map_names_what_is_there() -> None:
    (table,) = re.findall(r"## Where things are\n(.*?)\n## ", README, re.DOTALL)
    named = re.findall(r"`([\w./]+)`", table)
    folder = ROOT / "caprag"
    for name in named:
        assert (ROOT / name).exists() or (folder / name).exists(), name
    rooms = {p.name for p in folder.iterdir() if p.name[0] not in "_."}
    assert {Path(name).name for name in named} >= rooms - {"py.typed"}


def test_the_tables_are_those_of_the_results() -> None:
    done = subprocess.run([sys.executable, "benchmarks/tables.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0
