"""Hard negatives for pairs of a reading and its sentence, as FlagEmbedding's training files hold them.

Streams over the pairs; goes on after a kill at the place where it was; what comes out depends on the pairs, the corpus,
the embedder and the options alone.

References
----------
Xiao et al., C-Pack, SIGIR 2024, and FlagEmbedding's hn_mine: negatives from a range of ranks.
Moreira et al., NV-Retriever: Improving text embedding models with effective hard-negative mining, 2024: the margin
relative to the positive's score (TopK-PercPos, 95 %).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path

from caprag.errors import CapragError
from caprag.paths import replacing
from caprag.progress import progress_bar
from caprag.retrieval import load_embedder
from caprag.text import match_form
from caprag.training.candidates import METHODS, Candidates, Method, Ranked, Scores
from caprag.training.guard import REASONS, Guard
from caprag.training.pairs import Pair
from caprag.types import Embedder

# Always so many at a time: the arithmetic of a batch, and so the ranks, depend on its size.
_CHUNK = 512
_EXAMPLES = 3
_TRIES = 20


@dataclass(frozen=True, slots=True)
class MiningOptions:
    """What is mined.

    Attributes
    ----------
    methods
        Ranking to its share of the negatives, > 0: ``"dense"``, ``"edit"``, ``"glyph"``, ``"random"``.
    ranks
        First and last rank that negatives are drawn from, counted from 1 with all sentences, positives too.
    negatives
        For each pair, >= 1.
    margin
        A negative's cosine with the query is at most this part of the positive's; ``None`` allows any. Not asked of
        negatives drawn at random.
    fill
        Whether what the ranks do not yield is drawn at random from the corpus.
    seed
        Of what is drawn.
    """

    methods: Mapping[Method, float] = field(default_factory=lambda: {"dense": 1.0})
    ranks: tuple[int, int] = (2, 20)
    negatives: int = 9
    margin: float | None = 0.95
    fill: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [method for method in self.methods if method not in METHODS]
        if unknown or not self.methods or not all(share > 0 for share in self.methods.values()):
            raise ValueError(f"methods is {dict(self.methods)}; shares above 0 of {', '.join(METHODS)} are wanted")
        first, last = self.ranks
        if not 1 <= first <= last:
            raise ValueError(f"ranks is {first}-{last}; the first must be at least 1, the last no less")
        if self.negatives < 1:
            raise ValueError(f"negatives is {self.negatives}; at least 1 is needed")
        if self.margin is not None and not self.margin > 0:
            raise ValueError(f"margin is {self.margin}; a part of the positive's score above 0 is wanted")

    def quotas(self) -> dict[Method, int]:
        """Return how many negatives each method gives: by its share, what is left to the largest remainders."""
        total = sum(self.methods.values())
        exact = {method: self.negatives * share / total for method, share in self.methods.items()}
        quotas = {method: int(value + 1e-9) for method, value in exact.items()}
        order = sorted(exact, key=lambda method: (quotas[method] - exact[method], METHODS.index(method)))
        for method in order[: self.negatives - sum(quotas.values())]:
            quotas[method] += 1
        return quotas


@dataclass(slots=True)
class MiningReport:
    """What was mined, and what was refused.

    Attributes
    ----------
    pairs
        Pairs that were read.
    written
        Lines that were written; pairs without a single negative are left out, and those of `empty`.
    empty
        Pairs that were left out because no letter or digit is in the query.
    negatives
        Method to how many it gave; ``"filled"`` are those drawn at random where it gave too few.
    refused
        Reason to the number of candidates; see `caprag.training.guard.REASONS`.
    examples
        Reason to up to three of (query, positive, candidate).
    """

    pairs: int = 0
    written: int = 0
    empty: int = 0
    negatives: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[list[str]]] = field(default_factory=dict)

    def __str__(self) -> str:
        given = ", ".join(f"{name} {count}" for name, count in self.negatives.items())
        empty = f", {self.empty} without a text in the query" if self.empty else ""
        lines = [f"{self.pairs} pairs, {self.written} written{empty}; negatives: {given or 'none'}"]
        lines += [f"refused, {reason}: {self.refused[reason]}" for reason in REASONS if self.refused.get(reason)]
        for reason in REASONS:
            for query, positive, candidate in self.examples.get(reason, []):
                lines.append(f"  {reason}: {candidate} for {query} = {positive}")
        return "\n".join(lines)

    def refuse(self, reason: str, pair: Pair, candidate: str) -> None:
        """Count a refused candidate, and keep the first few as examples."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
        kept = self.examples.setdefault(reason, [])
        if len(kept) < _EXAMPLES:
            kept.append([pair.query, pair.positives[0], candidate])


def mine_negatives(
    pairs: Iterable[Pair],
    corpus: Iterable[str],
    out: str | PathLike[str],
    options: MiningOptions | None = None,
    *,
    embedder: Embedder | None = None,
    progress: bool = False,
) -> MiningReport:
    """Mine negatives and write them as JSON lines with ``query``, ``pos`` and ``neg``.

    Beside the file lies ``<name>.report.json``, with which it is taken up again after a stop; the result is the same
    as without one, to the byte, the report included.

    Parameters
    ----------
    pairs
        In any number; on taking up, those that are done are read over and compared.
    corpus
        Where negatives come from; equal ones count once.
    out
        File to write.
    options
        What to mine.
    embedder
        Ranks and scores; ``None`` takes the shipped one.
    progress
        Whether to show how far it is on stderr.

    Returns
    -------
    MiningReport
        Over all of the file.

    Raises
    ------
    CapragError
        Where `out` holds something else, or was begun with another corpus, embedder or options, or other pairs.
    CorpusError
        Where the corpus has no sentence, and what the pairs' reading raises.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "train.jsonl")
    >>> corpus = ["午餐吃什麼", "快餐吃什麼", "午餐吃什么?", "明天見"]
    >>> options = MiningOptions(ranks=(1, 4), negatives=2, margin=None)
    >>> report = mine_negatives([Pair("牛餐吃什麼", ("午餐吃什麼",))], corpus, path, options)
    >>> sorted(json.loads(path.read_text(encoding="utf-8"))["neg"]), report.written
    (['快餐吃什麼', '明天見'], 1)
    """
    settings = options or MiningOptions()
    model = embedder or load_embedder()
    texts = list(corpus)
    target = _Output(Path(out), _signature(texts, model, settings))
    if target.done:
        target.check(iter(pairs))
        return target.report
    candidates = Candidates(texts, model, list(settings.methods), settings.ranks[1], progress=progress)
    miner = _Miner(candidates, settings)
    rest = iter(pairs)
    target.skip(rest)
    with target, progress_bar(None, "mine", " pairs", initial=target.report.pairs, show=progress) as bar:
        while chunk := list(itertools.islice(rest, _CHUNK)):
            rows = miner.mine(chunk, target.report)
            target.append(chunk, rows)
            bar.update(len(chunk))
        target.finish()
    return target.report


class _Miner:
    """Chooses negatives for chunks of pairs."""

    def __init__(self, candidates: Candidates, options: MiningOptions) -> None:
        self._candidates = candidates
        self._options = options
        self._quotas = options.quotas()

    def mine(self, chunk: list[Pair], report: MiningReport) -> list[dict[str, object]]:
        """Return the rows of a chunk, and count what was done."""
        ranked = self._candidates.rank([p.query for p in chunk], [p.positives for p in chunk])
        rows: list[dict[str, object]] = []
        for pair, (ranks, scores) in zip(chunk, ranked, strict=True):
            # A generator for each pair: what comes before draws nothing from it.
            draw = random.Random(f"{self._options.seed} {report.pairs}")
            report.pairs += 1
            if not match_form(pair.query):
                report.empty += 1
                continue
            negatives = self._choose(pair, ranks, scores, draw, report)
            if negatives:
                rows.append({"query": pair.query, "pos": list(pair.positives), "neg": negatives})
                report.written += 1
        return rows

    def _choose(
        self, pair: Pair, ranks: Ranked, scores: Scores, draw: random.Random, report: MiningReport
    ) -> list[str]:
        texts, options = self._candidates.texts, self._options
        ceiling = None if options.margin is None else options.margin * scores.positive
        guard = Guard(pair.query, pair.positives, ceiling)
        chosen: list[int] = []
        seen: set[int] = set()

        def take(pool: Iterable[int], most: int, name: str) -> None:
            for number in pool:
                if len(chosen) >= most:
                    return
                if number in seen:
                    continue
                seen.add(number)
                # What is drawn blindly is hardly ever near: its cosine is not worth an embedding.
                scored = ceiling is not None and name in self._quotas and name != "random"
                reason = guard.check(texts[number], self._candidates.cosine(scores, number) if scored else None)
                if reason is None:
                    guard.take(texts[number])
                    chosen.append(number)
                    report.negatives[name] = report.negatives.get(name, 0) + 1
                else:
                    report.refuse(reason, pair, texts[number])

        first, last = options.ranks
        pools = {method: rows[first - 1 : last] for method, rows in ranks.by_method.items()}
        for method, pool in pools.items():
            draw.shuffle(pool)
            take(pool, len(chosen) + self._quotas[method], method)
        # Where one ranking has too few, the others give more.
        blind = self._quotas.get("random", 0)
        for method, pool in pools.items():
            take(pool, options.negatives - blind, method)
        for name, most in (("random", len(chosen) + blind), ("filled", options.negatives if options.fill else 0)):
            for _ in range(_TRIES):
                short = most - len(chosen)
                take([draw.randrange(len(texts)) for _ in range(short)], most, name)
        return [texts[number] for number in chosen]


class _Output:
    """The file that is written, and the report beside it that says how far it is whole."""

    def __init__(self, path: Path, signature: str) -> None:
        self._path = path
        self._beside = path.with_name(path.name + ".report.json")
        self._signature = signature
        self._digest = hashlib.sha256()
        self._bytes = 0
        self._wanted = self._digest.hexdigest()
        self.report = MiningReport()
        self.done = False
        if self._beside.exists():
            self._take_up()
        elif path.exists() and path.stat().st_size:
            raise CapragError(f"{path}: is there already, and no report beside it; choose another file or remove it")
        path.parent.mkdir(parents=True, exist_ok=True)

    def _take_up(self) -> None:
        try:
            state = json.loads(self._beside.read_text(encoding="utf-8"))
            signature, self._bytes, self._wanted = state["signature"], int(state["bytes"]), state["pairs_digest"]
            self.done = bool(state["done"])
            self.report = MiningReport(**state["report"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CapragError(f"{self._beside}: is no report of mining ({error!r}); remove it") from error
        if signature != self._signature:
            raise CapragError(
                f"{self._path}: was begun with another corpus, embedder or options; choose another file, or remove it "
                f"and {self._beside.name}"
            )
        if self._bytes and (not self._path.exists() or self._path.stat().st_size < self._bytes):
            raise CapragError(f"{self._path}: is shorter than its report says; remove both and begin anew")

    def skip(self, pairs: Iterator[Pair]) -> None:
        """Read over the pairs that are done; CapragError where they are others."""
        for pair in itertools.islice(pairs, self.report.pairs):
            self._note(pair)
        if self._digest.hexdigest() != self._wanted:
            raise CapragError(f"{self._path}: was begun with other pairs; choose another file, or remove it")

    def check(self, pairs: Iterator[Pair]) -> None:
        """Read the pairs over; CapragError unless they are just those that are done."""
        self.skip(pairs)
        if next(pairs, None) is not None:
            raise CapragError(f"{self._path}: was made of fewer pairs; choose another file, or remove it")

    def _note(self, pair: Pair) -> None:
        self._digest.update(json.dumps([pair.query, *pair.positives]).encode())

    def __enter__(self) -> _Output:
        if not self._beside.exists():
            self._write_report()
        self._stream = self._path.open("r+b" if self._path.exists() else "w+b")
        # What a killed writer left beyond the last whole chunk is made again.
        self._stream.truncate(self._bytes)
        self._stream.seek(self._bytes)
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def append(self, pairs: Iterable[Pair], rows: Iterable[Mapping[str, object]]) -> None:
        """Write the rows of some pairs, and see them on the disk before the report says so."""
        for pair in pairs:
            self._note(pair)
        piece = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self._bytes += self._stream.write(piece.encode("utf-8", "replace"))
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._write_report()

    def finish(self) -> None:
        """Say that no pair is left."""
        self.done = True
        self._write_report()

    def _write_report(self) -> None:
        state = {
            "done": self.done, "bytes": self._bytes, "signature": self._signature,
            "pairs_digest": self._digest.hexdigest(), "report": asdict(self.report),
        }  # fmt: skip
        with replacing(self._beside) as stream:
            stream.write((json.dumps(state, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "replace"))


def _signature(texts: Iterable[str], embedder: Embedder, options: MiningOptions) -> str:
    digest = hashlib.sha256(json.dumps({**asdict(options), "methods": list(options.methods.items())}).encode())
    digest.update(embedder.fingerprint.encode())
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()
