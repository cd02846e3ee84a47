"""Make the shipped embedder: python scripts/train_embedder.py TEXT... --work FOLDER [--subtitles FOLDER].

Split (whole documents and near-duplicates held out), pre-train from scratch with fresh noise in each epoch, mine hard
negatives with what came out, train on them by FlagEmbedding's recipe, measure, save. Each phase leaves its result in
--work, and a second run goes on where the first was stopped, within a phase too. About half an hour on two free cores.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import caprag
from caprag.corpus import read_rows
from caprag.noise import NoiseChannel
from caprag.text import match_form, normalize
from caprag.training.candidates import dense_ranks
from caprag.training.embedder import TrainingOptions, train_embedder
from caprag.training.negatives import MiningOptions, mine_negatives
from caprag.training.pairs import Pair, noisy_pairs
from caprag.training.pretraining import Noise, PretrainingOptions, pretrain_embedder
from caprag.training.readings import VariedNoise
from caprag.training.saving import folder_size, save_embedder
from caprag.training.scratch import Architecture, new_encoder
from caprag.training.split import split_sentences

ROOT = Path(__file__).resolve().parent.parent
MOST_CHARACTERS = 40
MOST_BYTES = 12_000_000
STRENGTHS = (0.08, 0.16, 0.3)
"""Of the noise in training, events a letter: by itself the channel leaves most lines as they are."""


def main() -> None:
    """Go through the phases, and print the figures."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    sentences = [s for s in caprag.read_corpus(arguments.text) if len(s.text) <= MOST_CHARACTERS]
    split = split_sentences(sentences, seed=arguments.seed)
    print(split, flush=True)
    texts = [s.text for s in sentences]
    train = [texts[i] for i in split.train]
    noise = VariedNoise(NoiseChannel.load())
    seconds: dict[str, float] = {}
    architecture = Architecture(hidden=arguments.hidden, layers=arguments.layers, heads=arguments.heads)
    if not (work / "new").exists():
        new_encoder(work / "new", architecture, seed=arguments.seed)
    pretraining = PretrainingOptions(
        epochs=arguments.epochs, batch_size=arguments.batch_size, learning_rate=arguments.learning_rate,
        strengths=STRENGTHS, seed=arguments.seed,
    )  # fmt: skip
    if not (work / "pretrained/model.safetensors").exists():
        started = time.perf_counter()
        losses = pretrain_embedder(
            train, work / "new", work / "pretrained", noise, pretraining, logs=work / "logs", progress=True
        )
        seconds["pre-train"] = time.perf_counter() - started
        print(f"pre-trained: loss {np.mean(losses[-100:]):.4f}, {seconds['pre-train']:.0f} s", flush=True)
    save_embedder(work / "pretrained", work / "pretrained-embedder", max_length=architecture.max_length)

    mining = MiningOptions(
        methods={"dense": 1.0, "edit": 0.5, "glyph": 0.5}, ranks=(1, 20), negatives=9, margin=None, seed=arguments.seed
    )
    started = time.perf_counter()
    report = mine_negatives(
        mixed_pairs(train, noise, arguments.pairs, arguments.seed), train, work / "mined.jsonl", mining,
        embedder=caprag.load_embedder(work / "pretrained-embedder"), progress=True,
    )  # fmt: skip
    seconds["mine"] = time.perf_counter() - started
    print(report, flush=True)

    recipe = TrainingOptions(
        batch_size=64, group_size=8, learning_rate=arguments.tuning_rate, query_max_length=architecture.max_length,
        passage_max_length=architecture.max_length, seed=arguments.seed, save_steps=200,
    )  # fmt: skip
    started = time.perf_counter()
    train_embedder(
        [work / "mined.jsonl"], work / "pretrained", work / "tuned", recipe, work=work / "tuning", half=True,
        progress=True,
    )  # fmt: skip
    seconds["fine-tune"] = time.perf_counter() - started

    figures = {
        name: measure(work / folder, texts, [texts[i] for i in split.test], noise, arguments.subtitles)
        for name, folder in (("pre-trained", "pretrained-embedder"), ("fine-tuned", "tuned"))
    }
    size = folder_size(work / "tuned")
    print(json.dumps(figures, indent=1, ensure_ascii=False))
    print(f"{size / 1e6:.1f} MB; seconds: {seconds}")
    if size > MOST_BYTES:
        raise SystemExit(f"{work / 'tuned'}: has {size} bytes; at most {MOST_BYTES} are wanted")
    save_embedder(work / "tuning/encoder", arguments.out, max_length=architecture.max_length, half=True)
    made = {
        "sentences": len(train), "held_out": len(split.test), "pairs": report.written, "bytes": size,
        "architecture": asdict(architecture), "pretraining": asdict(pretraining), "mining": asdict(mining),
        "training": asdict(recipe), "figures": figures,
    }  # fmt: skip
    (arguments.out / "recipe.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_card(arguments.out, made)


def parse() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="+", help="files and folders of known sentences")
    parser.add_argument("--work", type=Path, required=True, help="folder of what the phases leave")
    parser.add_argument("--out", type=Path, default=ROOT / "caprag/retrieval/embedder")
    parser.add_argument("--subtitles", type=Path, help="folder of films with truth.srt and paddle.srt, to measure with")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--pairs", type=int, default=30_000, help="pairs to mine negatives for")
    parser.add_argument("--tuning-rate", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def mixed_pairs(texts: list[str], noise: Noise, count: int, seed: int) -> list[Pair]:
    """Return pairs of every strength of the noise, in a drawn order."""
    draw = random.Random(seed)
    share = count // len(STRENGTHS)
    pairs: list[Pair] = []
    for number, strength in enumerate(STRENGTHS):
        chosen = [texts[i] for i in sorted(draw.sample(range(len(texts)), min(share, len(texts))))]
        pairs += noisy_pairs(chosen, noise, seed=10_000 + 100 * seed + number, strength=strength)
    draw.shuffle(pairs)
    return pairs


def measure(
    folder: Path, corpus: list[str], held_out: list[str], noise: Noise, subtitles: Path | None
) -> dict[str, dict[str, float]]:
    """Return recall of the true sentence among all, by cosine alone."""
    embedder = caprag.load_embedder(folder)
    figures: dict[str, dict[str, float]] = {}
    for strength in (None, *STRENGTHS):
        queries = noise.corrupt(held_out, seed=99, strength=strength)
        ranks = dense_ranks(embedder, corpus, queries, held_out)
        figures["held out, " + ("own strength" if strength is None else f"strength {strength}")] = summary(ranks)
    if subtitles is not None:
        read, truth = misread_lines(subtitles)
        everything = list(dict.fromkeys([*corpus, *truth]))
        figures["films, misread lines"] = summary(dense_ranks(embedder, everything, read, truth))
    return figures


def summary(ranks: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return recall at 1, 10 and 32, the mean reciprocal rank, and the number of queries."""
    recall = {f"recall@{k}": round(float((ranks <= k).mean()), 4) for k in (1, 10, 32)}
    return {**recall, "mrr": round(float((1 / ranks).mean()), 4), "queries": len(ranks)}


def misread_lines(subtitles: Path) -> tuple[list[str], list[str]]:
    """Return what an engine read wrongly in the films, and the truth of it."""
    read: list[str] = []
    truth: list[str] = []
    for film in sorted(path for path in subtitles.iterdir() if path.is_dir()):
        rows = [
            [normalize(text) for _, text in read_rows(film / f"{name}.srt") if isinstance(text, str)]
            for name in ("paddle", "truth")
        ]
        for reading, meant in zip(*rows, strict=True):
            if match_form(reading) != match_form(meant) and reading and meant:
                read.append(reading)
                truth.append(meant)
    return read, truth


CARD = """---
library_name: sentence-transformers
license: apache-2.0
pipeline_tag: sentence-similarity
---

# The embedder that comes with caprag
Puts a noisy reading of a Chinese caption next to the sentence that was meant. BGE's architecture in small: a BERT
encoder of {layers} layers, {hidden} wide, one token a character ({characters} characters: Big5 with Hong Kong's
supplement, GB 2312, Shift JIS, kana, bopomofo, Latin, Greek, Cyrillic), the vector of the first token, normalised.
{megabytes:.1f} MB in half precision.

- **Data**: {sentences:,} sentences of up to {most} characters of the Common Voice sentence lists zh-TW, zh-HK and zh-CN
  (CC0; the part from Wikipedia CC BY-SA). {held_out:,} more, whole documents without near-duplicates in training, were
  held out.
- **Recipe**: `scripts/train_embedder.py`, with all numbers in `recipe.json`. Token vectors start from the shapes of the
  characters. First phase: {epochs} epochs of InfoNCE over batches of {batch} at temperature 0.02, the readings made
  anew each time by caprag's noise channel, part of them in another region's characters or without signs. Second phase:
  FlagEmbedding's encoder-only recipe with hard negatives that the first phase's model, edit distance and glyph distance
  put near {pairs:,} readings.
- **Figures** (rank of the true sentence by cosine alone, among all sentences):

{table}

- **Limits**: knows shapes and order of characters, not meaning: do not use it to look sentences up by topic or in other
  words. Texts are cut at {window} tokens. Characters outside the vocabulary are all alike to it. The noise is that of
  programs that read printed captions, not of speech recognition or handwriting. Half of the training sentences are
  from Wikipedia, in Simplified characters.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("caprag/retrieval/embedder")
```
"""


def write_card(folder: Path, made: dict[str, Any]) -> None:
    """Write the model card with the figures of this run."""
    tokens = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    rows = ["| queries | first phase: first, in 10, in 32 | both phases: first, in 10, in 32 |", "| --- | --- | --- |"]
    for name, after in made["figures"]["fine-tuned"].items():
        before = made["figures"]["pre-trained"][name]
        cells = [", ".join(f"{100 * f[f'recall@{k}']:.1f} %" for k in (1, 10, 32)) for f in (before, after)]
        rows.append(f"| {name} ({after['queries']}) | {' | '.join(cells)} |")
    card = CARD.format(
        layers=made["architecture"]["layers"], hidden=made["architecture"]["hidden"],
        characters=f"{sum(len(token) == 1 for token in tokens):,}", megabytes=made["bytes"] / 1e6,
        sentences=made["sentences"], most=MOST_CHARACTERS, held_out=made["held_out"],
        epochs=made["pretraining"]["epochs"], batch=made["pretraining"]["batch_size"], pairs=made["pairs"],
        table="\n".join(f"  {row}" for row in rows), window=made["architecture"]["max_length"],
    )  # fmt: skip
    (folder / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
