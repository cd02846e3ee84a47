"""The systems that benchmarks/scale.py times: one process builds each, another opens it, searches it and adds to it.

Run by benchmarks/scale.py alone; for milvus-lite by the Python of an environment that has no caprag. Sentences are
known by their place in the corpus. What a process measured is the last line that it prints, as JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

ADDED = 10_000
"""The first lines of the material: added to the built corpus, which begins behind them."""
BLOCK = 1_000_000
QUERIES = 1024
SINGLES = 100
NOISES = (10, 30)
"""Per cent of the letters."""
FACTORIES = {
    10_000: ("Flat", ""), 100_000: ("Flat", ""), 1_000_000: ("IVF2048,SQ8", "nprobe=24"),
    10_000_000: ("IVF4096,SQ8", "nprobe=32"),
}  # fmt: skip
"""Size to FAISS factory and search parameters, of caprag and of FAISS alone."""
EXHAUSTIVE = 1000
"""Candidates of each search, for what caprag would find if it missed none."""

Vectors = npt.NDArray[np.float32]


class Material:
    """Lines and their vectors, read from disk in blocks, so that they are not in memory with what is measured."""

    def __init__(self, lines: Path, vectors: Path) -> None:
        self._lines, self._vectors = lines, vectors

    def lines(self, start: int, stop: int) -> Iterator[str]:
        """Yield some lines."""
        with self._lines.open(encoding="utf-8", newline="\n") as stream:
            for line in itertools.islice(stream, start, stop):
                yield line[:-1]

    def vectors(self, start: int, stop: int) -> Vectors:
        """Read some vectors, shape (stop - start, dimension)."""
        return np.array(np.load(self._vectors, mmap_mode="r")[start:stop], np.float32)

    def blocks(self, size: int) -> Iterator[tuple[int, Iterator[str], Vectors]]:
        """Yield the first place, the lines and the vectors of each block of a corpus."""
        for start in range(0, size, BLOCK):
            span = ADDED + start, ADDED + min(start + BLOCK, size)
            yield start, self.lines(*span), self.vectors(*span)


class System(Protocol):
    """What is timed."""

    package: str

    def build(self, folder: Path, material: Material, size: int) -> None:
        """Build and store."""

    def open(self, folder: Path, material: Material, size: int) -> None:
        """Open what is stored; what stores nothing builds again."""

    def search(self, texts: Sequence[str], vectors: Vectors) -> list[int]:
        """Return the place of the best sentence for each reading, -1 for none."""

    def add(self, texts: Sequence[str], vectors: Vectors, first: int) -> None:
        """Add sentences under places from `first` on; NotImplementedError where all must be built again."""


def factory_of(size: int) -> tuple[str, str]:
    """Return factory and parameters for a corpus: those of the smallest size that is as large."""
    return next((FACTORIES[s] for s in sorted(FACTORIES) if s >= size), FACTORIES[max(FACTORIES)])


class Caprag:
    """The index; it embeds the readings itself."""

    package = "faiss-cpu"

    def __init__(self, part: str, factory: str, parameters: str, candidates: int = 32) -> None:
        import caprag

        # To load it is no part of building; opening does without.
        self._embedder: Any = caprag.load_embedder() if part == "build" else None
        self._index_class = caprag.Index
        self._factory, self._parameters, self._candidates = factory, parameters, candidates

    def build(self, folder: Path, material: Material, size: int) -> None:
        """Add a block at a time: only the first is held for training."""
        index = self._index_class(self._embedder, factory=self._factory)
        for _, lines, vectors in material.blocks(size):
            index.add(lines, vectors=vectors)
        index.parameters = self._parameters
        if len(index) != size:
            sys.exit(f"the index has {len(index)} sentences and not {size}")
        index.save(folder)

    def open(self, folder: Path, material: Material, size: int) -> None:  # noqa: ARG002
        """Open the folder."""
        self._index = self._index_class.load(folder)

    def search(self, texts: Sequence[str], vectors: Vectors) -> list[int]:  # noqa: ARG002
        """Search by text."""
        found = self._index.search_batch(texts, 1, candidates=self._candidates)
        return [hits[0].id if hits else -1 for hits in found]

    def add(self, texts: Sequence[str], vectors: Vectors, first: int) -> None:
        """Add, which gives the next ids."""
        ids = self._index.add(texts, vectors=vectors)
        if ids != list(range(first, first + len(texts))):
            sys.exit(f"{len(ids)} sentences were added under ids from {ids[:1]}, and not {len(texts)} from {first}")


class Faiss:
    """The same vectors without texts."""

    package = "faiss-cpu"

    def __init__(self, factory: str, parameters: str) -> None:
        import faiss

        self._faiss, self._factory, self._parameters = faiss, factory, parameters

    def build(self, folder: Path, material: Material, size: int) -> None:
        """Train on the first block, add all."""
        faiss = self._faiss
        index = None
        for _, _, vectors in material.blocks(size):
            if index is None:
                index = faiss.index_factory(vectors.shape[1], self._factory, faiss.METRIC_INNER_PRODUCT)
                index.train(vectors)
            index.add(vectors)
        faiss.write_index(index, str(folder / "vectors.faiss"))

    def open(self, folder: Path, material: Material, size: int) -> None:  # noqa: ARG002
        """Read whole: what is mapped takes no new vectors."""
        self._index = self._faiss.read_index(str(folder / "vectors.faiss"))
        if self._parameters:
            self._faiss.ParameterSpace().set_index_parameters(self._index, self._parameters)  # type: ignore[arg-type]
        self._faiss.cvar.distance_compute_blas_threshold = 20

    def search(self, texts: Sequence[str], vectors: Vectors) -> list[int]:  # noqa: ARG002
        """Search by vector."""
        return [int(row[0]) for row in self._index.search(vectors, 1)[1]]

    def add(self, texts: Sequence[str], vectors: Vectors, first: int) -> None:  # noqa: ARG002
        """Add, which gives the next places."""
        self._index.add(vectors)


class BM25:
    """bm25s over single characters and pairs."""

    package = "bm25s"

    def build(self, folder: Path, material: Material, size: int) -> None:
        """Index all, and store it with its vocabulary."""
        import bm25s

        from caprag.evaluation.baselines import grams_of
        from caprag.text import match_form

        vocabulary: dict[str, int] = {}
        number = vocabulary.setdefault
        lines = material.lines(ADDED, ADDED + size)
        tokens = [[number(gram, len(vocabulary)) for gram in grams_of(match_form(line))] for line in lines]
        index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
        index.index((tokens, vocabulary), create_empty_token=False, show_progress=False)
        index.save(str(folder), show_progress=False)

    def open(self, folder: Path, material: Material, size: int) -> None:  # noqa: ARG002
        """Map it into memory."""
        import bm25s

        from caprag.evaluation.baselines import grams_of
        from caprag.text import match_form

        self._index = bm25s.BM25.load(str(folder), mmap=True)
        self._grams: Callable[[str], list[str]] = lambda text: grams_of(match_form(text))

    def search(self, texts: Sequence[str], vectors: Vectors) -> list[int]:  # noqa: ARG002
        """Score all sentences."""
        known = self._index.vocab_dict
        found = []
        for text in texts:
            ids = [known[gram] for gram in self._grams(text) if gram in known]
            scores = self._index.get_scores_from_ids(ids) if ids else np.zeros(1)
            found.append(int(scores.argmax()) if scores.max() > 0 else -1)
        return found

    def add(self, texts: Sequence[str], vectors: Vectors, first: int) -> None:
        """Refuse: it counts all sentences' n-grams when it is built."""
        raise NotImplementedError


class Edit:
    """rapidfuzz against every sentence."""

    package = "rapidfuzz"

    def build(self, folder: Path, material: Material, size: int) -> None:
        """Store nothing: all it needs are the sentences' forms, which `open` makes."""

    def open(self, folder: Path, material: Material, size: int) -> None:  # noqa: ARG002
        """Bring all sentences into the form that is compared."""
        from caprag.evaluation.baselines import EditRetriever

        self._retriever = EditRetriever(list(material.lines(ADDED, ADDED + size)), workers=-1)

    def search(self, texts: Sequence[str], vectors: Vectors) -> list[int]:  # noqa: ARG002
        """Compare with all."""
        return [row[0][0] if row else -1 for row in self._retriever.search_batch(texts, 1)]

    def add(self, texts: Sequence[str], vectors: Vectors, first: int) -> None:
        """Refuse: there is nothing but the list of forms."""
        raise NotImplementedError


class Milvus:
    """milvus-lite: the same vectors in an inverted file of as many cells."""

    package = "milvus-lite"

    def __init__(self, factory: str, parameters: str) -> None:
        # Its factory has no name for 8 bits that milvus-lite would not know too.
        cells = factory.split(",")[0].removeprefix("IVF") if factory.startswith("IVF") else ""
        kind = ("IVF_SQ8" if "SQ8" in factory else "IVF_FLAT") if cells else "FLAT"
        self._kind, self._cells = kind, int(cells or 0)
        self._search = {"nprobe": int(parameters.split("=")[1])} if cells else {}

    def build(self, folder: Path, material: Material, size: int) -> None:
        """Insert, index, wait until it is loaded."""
        from pymilvus import DataType, MilvusClient  # type: ignore[import-not-found]

        client = MilvusClient(str(folder / "milvus.db"))
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        for start, _, vectors in material.blocks(size):
            if not start:
                schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
                client.create_collection("lines", schema=schema)
            self._insert(client, vectors, start)
        index = client.prepare_index_params()
        index.add_index(
            "vector", index_type=self._kind, metric_type="IP", params={"nlist": self._cells} if self._cells else {}
        )
        client.create_index("lines", index)
        client.load_collection("lines")
        client.close()

    @staticmethod
    def _insert(client: Any, vectors: Vectors, first: int) -> None:
        # A message may not be larger.
        for start in range(0, len(vectors), 5000):
            rows = enumerate(vectors[start : start + 5000], first + start)
            client.insert("lines", [{"id": number, "vector": vector} for number, vector in rows])

    def open(self, folder: Path, material: Material, size: int) -> None:  # noqa: ARG002
        """Start its server on the file."""
        from pymilvus import MilvusClient

        self._client = MilvusClient(str(folder / "milvus.db"))
        self._client.load_collection("lines")

    def search(self, texts: Sequence[str], vectors: Vectors) -> list[int]:  # noqa: ARG002
        """Search by vector."""
        found = self._client.search(
            "lines", data=list(vectors), limit=1, output_fields=["id"], search_params={"params": self._search}
        )
        return [int(hits[0]["id"]) if hits else -1 for hits in found]

    def add(self, texts: Sequence[str], vectors: Vectors, first: int) -> None:  # noqa: ARG002
        """Insert."""
        self._insert(self._client, vectors, first)


def make_system(name: str, part: str, factory: str, parameters: str) -> System:
    """Return a system by its name, for one of its two parts."""
    if name == "caprag":
        return Caprag(part, factory, parameters)
    if name == "caprag, exhaustive":
        return Caprag(part, "Flat", "", EXHAUSTIVE)
    makers: dict[str, Callable[[], System]] = {
        "FAISS": lambda: Faiss(factory, parameters), "milvus-lite": lambda: Milvus(factory, parameters), "bm25s": BM25,
        "rapidfuzz": Edit,
    }  # fmt: skip
    return makers[name]()


def memory(field: str) -> int:
    """Return a figure of this process and its children: ``VmRSS`` (now) or ``VmHWM`` (at its most), bytes."""
    total, pids = 0, [os.getpid()]
    while pids:
        pid = pids.pop()
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split())
        except OSError:
            continue
        total += next((int(row.split()[1]) * 1024 for row in status.splitlines() if row.startswith(field)), 0)
    return total


def timed_search(
    system: System, texts: Sequence[str], vectors: Vectors, batch: int, seconds: float
) -> tuple[list[int], float]:
    """Search batch by batch, until the time is over; return what was found, and how long it took."""
    found: list[int] = []
    begin = time.perf_counter()
    for start in range(0, len(texts), batch):
        found += system.search(texts[start : start + batch], vectors[start : start + batch])
        if time.perf_counter() - begin > seconds:
            break
    return found, time.perf_counter() - begin


def build(system: System, folder: Path, material: Material, size: int) -> dict[str, Any]:
    """Build and store."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    begin = time.perf_counter()
    system.build(folder, material, size)
    seconds = time.perf_counter() - begin
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"build_seconds": seconds, "build_peak": memory("VmHWM"), "disk": disk, "version": version(system.package)}


def serve(
    system: System, folder: Path, material: Material, size: int, queries: Path, batch: int, seconds: float
) -> dict[str, Any]:
    """Open, search, add, and search what was added."""
    before = memory("VmRSS")
    begin = time.perf_counter()
    system.open(folder, material, size)
    result: dict[str, Any] = {"open_seconds": time.perf_counter() - begin}
    result |= {"open_rss": memory("VmRSS"), "rss_before": before}
    asked = json.loads(queries.read_text(encoding="utf-8"))
    vectors = {noise: np.load(queries.with_name(f"{queries.stem}-{noise}.npy")) for noise in NOISES}
    # What a first search loads is not of its speed.
    system.search(asked[str(NOISES[0])][-8:], vectors[NOISES[0]][-8:])
    for noise in NOISES:
        found, took = timed_search(system, asked[str(noise)], vectors[noise], batch, seconds)
        result |= {f"found_{noise}": found, f"batch_seconds_{noise}": took}
    low = NOISES[0]
    found, took = timed_search(system, asked[str(low)][:SINGLES], vectors[low], 1, seconds)
    result |= {"single_queries": len(found), "single_seconds": took, "search_peak": memory("VmHWM")}
    texts, added = list(material.lines(0, ADDED)), material.vectors(0, ADDED)
    begin = time.perf_counter()
    try:
        system.add(texts, added, size)
    except NotImplementedError:
        return result
    result["add_seconds"] = time.perf_counter() - begin
    places = system.search(texts[-1:], added[-1:])
    result["found_seconds"] = time.perf_counter() - begin
    result["added_found"] = places == [size + ADDED - 1]
    return result


def main() -> None:
    """Do one part, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("build", "serve"))
    parser.add_argument("system")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--factory", default="Flat")
    parser.add_argument("--parameters", default="")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=60.0, help="most that a kind of search takes")
    for name in ("--folder", "--lines", "--vectors", "--queries"):
        parser.add_argument(name, type=Path, required=True)
    a = parser.parse_args()
    system, material = make_system(a.system, a.part, a.factory, a.parameters), Material(a.lines, a.vectors)
    if a.part == "build":
        result = build(system, a.folder, material, a.size)
    else:
        result = serve(system, a.folder, material, a.size, a.queries, a.batch, a.seconds)
    print("\n" + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
