"""Time retrieval from 10,000 to 10 million sentences: python benchmarks/scale.py [--sizes 10000 100000 ...].

The sentences are made of halves of lines of text/. caprag, FAISS and milvus-lite alone on the same vectors, bm25s and
exhaustive search by rapidfuzz are each built in one process and served by another, on two cores: seconds to build and
to open, readings a second in batches and one by one, recall@1 for readings with 10 % and 30 % of noise, memory, disk,
and how fast 10,000 sentences are added and found. What caprag's own ranking would find if the searches before it missed
nothing is measured by a Flat index with many candidates. Only the first million lines are embedded, unless --embedded
says otherwise: the vectors of the others are copies of theirs, turned away as far as a line's nearest neighbour is.

All is kept under build/scale, with a file a cell: what was measured is not measured again, but with --again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from corpora import made_lines
from material import ROOT, require_data, write
from scale_systems import ADDED, BLOCK, NOISES, QUERIES, Material, factory_of
from synthesis_peers import Peer, _environment, _reason

import caprag
from caprag.evaluation.report import hash_of
from caprag.evaluation.significance import bootstrap_means, paired_test
from caprag.noise import NoiseChannel, channel
from caprag.progress import progress_bar
from caprag.text import match_form

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
SYSTEMS = ("caprag", "caprag, exhaustive", "FAISS", "milvus-lite", "bm25s", "rapidfuzz")
BY_VECTOR = ("FAISS", "milvus-lite")
MOST = {"bm25s": 5_000_000, "caprag, exhaustive": 2_000_000, "milvus-lite": 1_000_000}
"""The most sentences of systems that would want more memory: 2 kB a sentence, 5 GB of vectors, 3 kB a sentence."""
MILVUS = Peer("milvus-lite", ("pymilvus==3.0.2", "milvus-lite==3.2.2", "numpy"), (), None)  # type: ignore[arg-type]
# Median cosine of a line to its nearest neighbour among a million, by the shipped embedder.
NEIGHBOUR = 0.84
THREADS = 2
# Threads that spin while they wait take the core from those that they wait for, where anything else runs: a hundredfold
# of the time for a single reading. The libraries read these when they are loaded.
ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), str(THREADS)),
    "OMP_WAIT_POLICY": "PASSIVE",
}
SEED = 1


def make_lines(path: Path, count: int) -> None:
    """Write so many lines, unless they are there."""
    if path.exists() and _count_lines(path) >= count:
        return
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="\n") as stream, progress_bar(count, "lines", " lines") as bar:
        for line in made_lines(count, SEED):
            stream.write(line + "\n")
            bar.update()
    part.replace(path)


def _count_lines(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 24), b""))


def embed_lines(folder: Path, lines: Path, count: int, threads: int) -> float:
    """Embed the first lines into ``vectors.npy``, going on where it was stopped; return the seconds for each."""
    import torch

    torch.set_num_threads(threads)
    state, path = folder / "embedded.json", folder / "vectors.npy"
    resumed = state.exists() and path.exists()
    known = json.loads(state.read_text(encoding="utf-8")) if resumed else {"count": 0, "seconds": 0.0}
    done, seconds = int(known["count"]), float(known["seconds"])
    embedder = caprag.load_embedder()
    if path.exists() and len(np.load(path, mmap_mode="r")) < count:
        _extend(path, count)
    elif not path.exists():
        np.lib.format.open_memmap(path, "w+", np.float32, (count, embedder.dimension))
    table = np.load(path, mmap_mode="r+")
    material = Material(lines, path)
    with progress_bar(count, "embed", " lines", initial=min(done, count)) as bar:
        for start in range(done, count, 1 << 14):
            texts = list(material.lines(start, min(start + (1 << 14), count)))
            begin = time.perf_counter()
            table[start : start + len(texts)] = embedder.embed(texts)
            table.flush()
            done, seconds = start + len(texts), seconds + time.perf_counter() - begin
            state.write_text(json.dumps({"count": done, "seconds": seconds}), encoding="utf-8")
            bar.update(len(texts))
    return seconds / max(1, done)


def _extend(path: Path, count: int) -> None:
    old = np.load(path, mmap_mode="r")
    new = np.lib.format.open_memmap(path.with_suffix(".new.npy"), "w+", np.float32, (count, old.shape[1]))
    for start in range(0, len(old), BLOCK):
        new[start : start + BLOCK][: len(old) - start] = old[start : start + BLOCK]
    del new
    path.with_suffix(".new.npy").replace(path)


def copy_vectors(path: Path, known: Path, embedded: int, count: int) -> None:
    """Write the vectors of so many lines, those that were not embedded as copies of others, turned away a little."""
    source = np.load(known, mmap_mode="r")
    if path.exists() and np.load(path, mmap_mode="r").shape == (count, source.shape[1]):
        return
    part = path.with_suffix(".part.npy")
    table = np.lib.format.open_memmap(part, "w+", np.float32, (count, source.shape[1]))
    spread = np.sqrt((NEIGHBOUR**-2 - 1) / source.shape[1])
    with progress_bar(count, "copies", " vectors") as bar:
        for start in range(0, count, 1 << 16):
            places = np.arange(start, min(start + (1 << 16), count))
            # The lines that will be added have none.
            wrapped = np.where(places < embedded, places, ADDED + (places - ADDED) % (embedded - ADDED))
            rows = np.array(source[np.sort(wrapped)] if places[-1] < embedded else source[wrapped], np.float32)
            fresh = places >= embedded
            noise = np.random.default_rng([SEED, start]).standard_normal(rows.shape, np.float32)
            rows[fresh] += noise[fresh] * np.float32(spread)
            rows[fresh] /= np.linalg.norm(rows[fresh], axis=1, keepdims=True)
            table[places[0] : places[-1] + 1] = rows
            bar.update(len(places))
    del table
    part.replace(path)


def make_queries(path: Path, material: Material, size: int, embedded: int) -> dict[str, Any]:
    """Draw lines whose own vectors are known, misread and embed them; return what was asked and what it stands for."""
    if path.exists():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    among = min(size, embedded - ADDED)
    places = np.sort(np.random.default_rng(SEED).permutation(among)[:QUERIES])
    wanted = set(places.tolist())
    texts = [line for i, line in enumerate(material.lines(ADDED, ADDED + among)) if i in wanted]
    # In order of length or place a batch would be easier than another.
    order = np.random.default_rng(SEED).permutation(len(texts))
    texts, places = [texts[i] for i in order], places[order]
    misreader, embedder = NoiseChannel.load(), caprag.load_embedder()
    asked: dict[str, Any] = {"places": places.tolist(), "truths": texts}
    for noise in NOISES:
        asked[str(noise)] = misreader.corrupt(texts, seed=SEED, strength=noise / 100)
        begin = time.perf_counter()
        for start in range(0, len(texts), 256):
            vectors = embedder.embed(asked[str(noise)][start : start + 256])
            asked["embed_seconds"] = time.perf_counter() - begin
        vectors = embedder.embed(asked[str(noise)])
        np.save(path.with_name(f"{path.stem}-{noise}.npy"), vectors)
    begin = time.perf_counter()
    for text in asked[str(NOISES[0])][:100]:
        embedder.embed([text])
    asked["embed_single_seconds"] = (time.perf_counter() - begin) / 100
    path.write_text(json.dumps(asked, ensure_ascii=False), encoding="utf-8")
    return asked


def measure(
    system: str, size: int, paths: Mapping[str, Path], python: Path, choice: tuple[str, str], seconds: float, keep: bool
) -> dict[str, Any]:
    """Build and serve a system, each in a process of its own."""
    factory, parameters = choice
    folder = paths["folder"] / f"index-{system.replace(', ', '-')}-{size}"
    options = [
        "--size", str(size), "--factory", factory, "--parameters", parameters, "--seconds", str(seconds),
        # What compares with every sentence takes minutes for a full batch.
        "--batch", "16" if system == "rapidfuzz" else "256", "--folder", str(folder),
        *(word for name in ("lines", "vectors", "queries") for word in (f"--{name}", str(paths[name]))),
    ]  # fmt: skip
    try:
        result: dict[str, Any] = {}
        for part in ("build", "serve"):
            result |= _run([str(python), str(Path(__file__).with_name("scale_systems.py")), part, system, *options])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        result = {"failed": _reason(error)}
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return {"system": system, "size": size, "factory": factory, "parameters": parameters, **result}


def _run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def right_answers(found: Sequence[int], asked: Mapping[str, Any], texts: Mapping[int, str]) -> list[float]:
    """Return 1 for each reading whose first hit has the matching form of its truth, else 0."""
    pairs = zip(found, asked["places"], asked["truths"], strict=False)
    return [float(i == place or match_form(texts.get(i, "")) == match_form(truth)) for i, place, truth in pairs]


def lines_at(material: Material, places: set[int], size: int) -> dict[int, str]:
    """Return the lines at some places of a corpus."""
    return {i: line for i, line in enumerate(material.lines(ADDED, ADDED + size)) if i in places}


def rows_of(cells: Sequence[dict[str, Any]], asked: dict[str, Any], material: Material) -> list[dict[str, Any]]:
    """Make rows of the table of the cells of one size."""
    size = cells[0]["size"]
    places = {i for cell in cells for noise in NOISES for i in cell.get(f"found_{noise}", ())}
    texts = lines_at(material, places, size)
    right = {
        (cell["system"], noise): right_answers(cell[f"found_{noise}"], asked, texts)
        for cell in cells if "failed" not in cell for noise in NOISES
    }  # fmt: skip
    rows = []
    for cell in cells:
        row = {name: value for name, value in cell.items() if not name.startswith("found_") or name == "found_seconds"}
        rows.append(row)
        if "failed" in cell:
            continue
        for noise in NOISES:
            values = right[cell["system"], noise]
            row[f"queries_{noise}"] = len(values)
            row[f"recall_{noise}"] = float(np.mean(values))
            row[f"interval_{noise}"] = bootstrap_means(values).tolist()
            full = right.get(("caprag, exhaustive", noise)) if cell["system"] == "caprag" else None
            if full:
                common = min(len(full), len(values))
                test = paired_test(values[:common], full[:common])
                row[f"below_exhaustive_{noise}"] = test.difference
                row[f"below_exhaustive_interval_{noise}"] = test.interval
        low = NOISES[0]
        batch, single = cell[f"batch_seconds_{low}"], cell["single_seconds"]
        row["rate_without_embedding"] = row[f"queries_{low}"] / batch if cell["system"] in BY_VECTOR else None
        if cell["system"] in BY_VECTOR:
            batch += asked["embed_seconds"] * row[f"queries_{low}"] / len(asked["truths"])
            single += asked["embed_single_seconds"] * cell["single_queries"]
        row["rate"] = row[f"queries_{low}"] / batch
        row["single_rate"] = cell["single_queries"] / single
        row["add_rate"] = ADDED / cell["add_seconds"] if "add_seconds" in cell else None
    return rows


def arguments_of() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--embedded", type=int, default=1_000_000, help="how many sentences have vectors of their own")
    parser.add_argument("--factory", help="instead of the one for the size, for example IVF1024,SQ8:nprobe=32")
    parser.add_argument("--seconds", type=float, default=60.0, help="most that a kind of search takes")
    parser.add_argument("--out", type=Path, default=ROOT / "build/scale")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "caprag-peers")
    parser.add_argument("--lines", type=Path, help="for development: lines to take instead, one a line")
    parser.add_argument("--vectors", type=Path, help="for development: their vectors, .npy")
    parser.add_argument("--again", action="store_true", help="measure again what was measured")
    parser.add_argument("--keep", action="store_true", help="leave the indexes on disk")
    parser.add_argument("--name", default="scale", help="of the result file")
    return parser.parse_args()


def main() -> None:
    """Make what is missing, measure what is missing, and write it down."""
    arguments = arguments_of()
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})
    require_data()
    fingerprint = "given" if arguments.vectors else caprag.load_embedder().fingerprint[:12]
    folder = (arguments.out / fingerprint).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    # Readings by another channel are other queries.
    cells_folder = folder / hash_of(Path(channel.__file__).with_name("parameters.json").read_text("utf-8").split("\n"))
    cells_folder.mkdir(exist_ok=True)
    largest = max(arguments.sizes)
    if arguments.vectors:
        lines, known, each = arguments.lines.resolve(), arguments.vectors.resolve(), float("nan")
        embedded = len(np.load(known, mmap_mode="r"))
    else:
        lines, known = arguments.out.resolve() / "lines.txt", folder / "vectors.npy"
        embedded = ADDED + min(arguments.embedded, largest)
        make_lines(lines, ADDED + largest)
        each = embed_lines(folder, lines, embedded, THREADS)
    rows = []
    for size in sorted(arguments.sizes):
        vectors = known
        if ADDED + size > embedded:
            vectors = folder / f"vectors-{size}.npy"
            copy_vectors(vectors, known, embedded, ADDED + size)
        material = Material(lines, vectors)
        queries = cells_folder / f"queries-{size}.json"
        asked = make_queries(queries, material, size, embedded)
        paths = {"folder": folder, "lines": lines, "vectors": vectors, "queries": queries}
        cells = []
        for system in arguments.systems:
            if size > MOST.get(system, size):
                continue
            choice = tuple(arguments.factory.partition(":")[::2]) if arguments.factory else factory_of(size)
            name = f"cell-{system.replace(', ', '-')}-{size}-{'-'.join(choice)}.json"
            cell = cells_folder / "".join(c if c.isalnum() or c in "-._=" else "_" for c in name)
            if arguments.again or not cell.exists():
                python = Path(sys.executable)
                if system == "milvus-lite":
                    python = _environment(MILVUS, arguments.cache / "milvus-lite")
                measured = measure(system, size, paths, python, choice, arguments.seconds, arguments.keep)
                cell.write_text(json.dumps(measured), encoding="utf-8")
            cells.append(json.loads(cell.read_text(encoding="utf-8")))
            print(summary(rows_of(cells, asked, material)[-1]), flush=True)
        own = {"embedding_seconds": each * size, "embedded": min(size, embedded - ADDED)}
        rows += [{**row, **own} for row in rows_of(cells, asked, material)]
    path = write(arguments.name, {"embedding_rate": 1 / each, "neighbour_cosine": NEIGHBOUR, "rows": rows})
    print(path)


def summary(row: Mapping[str, Any]) -> str:
    """Say in a line what a cell has come to."""
    if "failed" in row:
        return f"{row['size']:>9} {row['system']:19} failed: {row['failed']}"
    recalls = ", ".join(f"{noise} %: {row[f'recall_{noise}']:.2%}" for noise in NOISES)
    added = (
        f", {row['add_rate']:.0f} added a second, found after {row['found_seconds']:.2f} s" if row["add_rate"] else ""
    )
    return (
        f"{row['size']:>9} {row['system']:19} {row['factory']} {row['parameters']}: build {row['build_seconds']:.1f} s "
        f"({row['build_peak'] / 1e6:.0f} MB, disk {row['disk'] / 1e6:.0f} MB), open {row['open_seconds']:.2f} s "
        f"({row['rss_before'] / 1e6:.0f} to {row['open_rss'] / 1e6:.0f} MB), {row['rate']:.0f} queries a second, "
        f"single {row['single_rate']:.0f} ({row['search_peak'] / 1e6:.0f} MB), {recalls}{added}"
    )


if __name__ == "__main__":
    main()
