"""The files of scripts/experiment: what it reads beside the verbs' own, and how a file is told from another one.

Knows no step.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from caprag.errors import CapragError
from caprag.paths import replacing
from caprag.results import path_name

RECIPES = Path(__file__).resolve().parent / "recipes"
SHOWN = 5


def absolute(path: Path) -> Path:
    """Return a path from the root on; links stay as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def noted(value: Any) -> Any:
    """Return a value as JSON has it: of a file or folder the name and a digest, for a folder of names and sizes."""
    if isinstance(value, (list, tuple)):
        parts = [noted(one) for one in value]
        if len(parts) <= SHOWN or not isinstance(value[0], Path):
            return parts
        return f"{len(parts)} paths ({hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]})"
    if not isinstance(value, Path):
        return value
    value = absolute(value)
    if not value.exists():
        return f"{path_name(value)} (not there)"
    digest, count = hashlib.sha256(), 0
    if value.is_dir():
        for root, folders, names in os.walk(value):
            folders.sort()
            for path in (Path(root, name) for name in sorted(names)):
                digest.update(f"{path_name(path.relative_to(value))}\0{path.stat().st_size}\0".encode())
                count += 1
        return f"{path_name(value)} ({count} files, {digest.hexdigest()[:12]})"
    with value.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return f"{path_name(value)} ({digest.hexdigest()[:12]})"


def find_recipe(given: str) -> Path:
    """Return the file of a recipe, which may be named like those in scripts/recipes."""
    for path in (Path(given), RECIPES / f"{given}.json"):
        if path.is_file():
            return path
    shipped = ", ".join(sorted(path.stem for path in RECIPES.glob("*.json")))
    raise CapragError(f"{given}: there is no such recipe; name a file, or one of {shipped}")


def read_ids(path: Path, column: str) -> list[str]:
    """Read the ids of a table, or of a text with one a line; each once."""
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".txt"):
        raise CapragError(f"{path}: has the suffix {path.suffix!r}; known are .csv .tsv .txt")
    try:
        content = io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")
    except OSError as error:
        raise CapragError(f"{path}: can't be read ({error.strerror}); name another file (--order)") from error
    except UnicodeDecodeError as error:
        raise CapragError(f"{path}: is not UTF-8 ({error.reason}); save it as UTF-8") from error
    if suffix == ".txt":
        ids = [line.strip() for line in content if line.strip()]
    else:
        table = csv.DictReader(content, delimiter="," if suffix == ".csv" else "\t")
        columns = table.fieldnames or ()
        if column not in columns:
            raise CapragError(f"{path}: has the columns {', '.join(columns)}; name that of the ids (--id-column)")
        ids = [row[column] for row in table]
    if not ids:
        raise CapragError(f"{path}: has no id; name another file (--order)")
    if twice := [name for name, count in Counter(ids).items() if count > 1]:
        raise CapragError(f"{path}: has ids several times: {shown(twice)}; leave one row of each")
    return ids


def read_readings(path: Path) -> dict[str, str]:
    """Return what caprag read answered, by the pictures' paths."""
    with path.open(encoding="utf-8") as lines:
        return {row["image"]: row["text"] for row in map(json.loads, lines)}


def write_submission(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Write ids and texts at one stroke."""
    # With this line end, which is the standard's, both of its characters are quoted in a text.
    content = io.StringIO(newline="")
    csv.writer(content, lineterminator="\r\n").writerows([("id", "text"), *rows])
    with replacing(path) as stream:
        stream.write(content.getvalue().encode())


def shown(names: Sequence[str]) -> str:
    """Return the first of some names."""
    return ", ".join(map(repr, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
