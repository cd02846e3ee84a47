"""Mined against random negatives: python benchmarks/negatives.py --work FOLDER.

The same small encoder, pre-trained briefly, is trained further on the same readings in the same order with the same
steps: once with mined negatives, once with negatives drawn at random. Measured is the rank of the true sentence by
cosine alone, among all sentences, for readings of held-out documents; the difference has a paired bootstrap interval
over sentences. The folder keeps what is done, so that a second run goes on; a quarter of an hour on two free cores.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from material import DATA, require_data, write

import caprag
from caprag.noise import NoiseChannel
from caprag.training import (
    Architecture,
    MiningOptions,
    Pair,
    PretrainingOptions,
    TrainingOptions,
    VariedNoise,
    mine_negatives,
    new_encoder,
    noisy_pairs,
    pretrain_embedder,
    save_embedder,
    split_sentences,
    train_embedder,
)
from caprag.training.candidates import dense_ranks

STRENGTHS = (0.1, 0.2, 0.3)
WINDOW = 64
KINDS = {
    "random": MiningOptions(methods={"random": 1.0}, margin=None),
    "mined": MiningOptions(methods={"dense": 0.5, "edit": 0.25, "glyph": 0.25}, ranks=(1, 20), margin=None),
}
SAMPLES = 2000


def main() -> None:
    """Train, compare and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is trained")
    parser.add_argument("--epochs", type=int, default=3, help="of the brief pre-training")
    parser.add_argument("--pairs", type=int, default=12_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    require_data()
    torch.set_num_threads(arguments.threads)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    sentences = [s for s in caprag.read_corpus(DATA / "text") if len(s.text) <= 40]
    split = split_sentences(sentences, seed=1)
    texts = [s.text for s in sentences]
    train, held_out = [texts[i] for i in split.train], [texts[i] for i in split.test]
    noise = VariedNoise(NoiseChannel.load())
    pretraining = PretrainingOptions(epochs=arguments.epochs, strengths=STRENGTHS)
    if not (work / "base/model.safetensors").exists():
        new_encoder(work / "new", Architecture(max_length=WINDOW))
        pretrain_embedder(train, work / "new", work / "base", noise, pretraining, progress=True)
    save_embedder(work / "base", work / "base-embedder", max_length=WINDOW)
    queries, truths = readings(held_out, noise)
    ranks = {"base": [rank(work / "base-embedder", texts, queries, truths)]}
    losses: dict[str, float] = {}
    recipe = TrainingOptions()
    for kind, mining in KINDS.items():
        mine_negatives(
            pairs(train, noise, arguments.pairs), texts, work / f"{kind}.jsonl", mining,
            embedder=caprag.load_embedder(work / "base-embedder"), progress=True,
        )  # fmt: skip
        ranks[kind] = []
        for seed in range(arguments.seeds):
            recipe = TrainingOptions(
                batch_size=64, learning_rate=arguments.rate, query_max_length=WINDOW, passage_max_length=WINDOW,
                seed=seed,
            )  # fmt: skip
            name = work / f"{kind}-{seed}"
            trained = train_embedder([work / f"{kind}.jsonl"], work / "base", name, recipe)
            losses[f"{kind} {seed}"] = round(list(trained.losses.values())[-1], 4)
            ranks[kind].append(rank(name, texts, queries, truths))
            print(kind, seed, summary(ranks[kind][-1]), flush=True)
    result = {
        "sentences": len(texts), "trained_on": len(train), "held_out": len(held_out), "queries": len(queries),
        "strengths": STRENGTHS, "pretraining": asdict(pretraining), "training": asdict(recipe),
        "seeds": arguments.seeds,
        "mining": {kind: asdict(mining) for kind, mining in KINDS.items()}, "last_losses": losses,
        "figures": {kind: [summary(row) for row in rows] for kind, rows in ranks.items()},
        "mined minus random": difference(ranks["mined"], ranks["random"], len(held_out)),
        "mined minus base": difference(ranks["mined"], ranks["base"], len(held_out)),
        "random minus base": difference(ranks["random"], ranks["base"], len(held_out)),
        "seconds": round(time.perf_counter() - started),
    }  # fmt: skip
    print(result["mined minus random"])
    print(write("negatives", result))


def pairs(train: list[str], noise: VariedNoise, count: int) -> list[Pair]:
    """Return readings of drawn sentences, with each strength in turn."""
    draw = random.Random(0)
    made: list[Pair] = []
    for number, strength in enumerate(STRENGTHS):
        made += noisy_pairs(draw.sample(train, count // len(STRENGTHS)), noise, seed=1000 + number, strength=strength)
    draw.shuffle(made)
    return made


def readings(held_out: list[str], noise: VariedNoise) -> tuple[list[str], list[str]]:
    """Return readings of each sentence at every strength, and what they stand for."""
    queries = [
        reading
        for number, strength in enumerate(STRENGTHS)
        for reading in noise.corrupt(held_out, seed=2000 + number, strength=strength)
    ]
    return queries, held_out * len(STRENGTHS)


def rank(folder: Path, texts: list[str], queries: list[str], truths: list[str]) -> npt.NDArray[np.int64]:
    """Return the ranks of the true sentences."""
    return dense_ranks(caprag.load_embedder(folder), texts, queries, truths, progress=True)


def summary(ranks: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return recall at 1 and 10 and the mean reciprocal rank."""
    return {
        "recall@1": round(float((ranks == 1).mean()), 5), "recall@10": round(float((ranks <= 10).mean()), 5),
        "mrr": round(float((1 / ranks).mean()), 5),
    }  # fmt: skip


def difference(
    ours: list[npt.NDArray[np.int64]], others: list[npt.NDArray[np.int64]], sentences: int
) -> dict[str, list[float]]:
    """Return the mean difference of each metric and its 95 % interval, over sentences with all their readings."""
    generator = np.random.default_rng(0)
    found: dict[str, list[float]] = {}
    for name in ("recall@1", "mrr"):
        scores = [
            np.mean([row == 1 if name == "recall@1" else 1 / row for row in rows], axis=0) for rows in (ours, others)
        ]
        paired = (scores[0] - scores[1]).reshape(-1, sentences).mean(axis=0)
        drawn = [paired[generator.integers(0, sentences, sentences)].mean() for _ in range(SAMPLES)]
        found[name] = [round(float(v), 5) for v in (paired.mean(), *np.percentile(drawn, [2.5, 97.5]))]
    return found


if __name__ == "__main__":
    main()
