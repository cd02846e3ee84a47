"""What is known of captions, kept as JSON lines, so that nothing is read twice."""

from __future__ import annotations

import json
from dataclasses import asdict

from caprag.reranking import Found
from caprag.types import Hit, Hypothesis


def as_line(found: Found, **others: object) -> str:
    """Write what is known of a caption, but where sentences stand, and what belongs to it."""
    stored = {name: value for name, value in asdict(found).items() if name != "places"}
    return json.dumps({**stored, **others}, ensure_ascii=False) + "\n"


def of_line(line: str) -> tuple[Found, dict[str, object]]:
    """Return what is known of a caption, and what else was written."""
    stored = json.loads(line)
    hypotheses = [Hypothesis(**one) for one in stored.pop("hypotheses")]
    hits = [Hit(**one) for one in stored.pop("hits")]
    return Found(hypotheses, hits, {}, stored.pop("margins"), stored.pop("cross")), stored
