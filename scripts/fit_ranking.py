"""Fit the weights by which hits are ranked: python scripts/fit_ranking.py TEXT....

Sentences of the corpus go through the reading-noise channel at strengths from 0.05 to 0.6; the weights make the true
sentence the likeliest of the candidates (a conditional logit). Only sentences that the embedder was not trained on are
read (the same split, by the seed of scripts/train_embedder.py): of those that it knows it is surer than of others.
Writes caprag/retrieval/ranking.json. To be run again when the embedder, the glyph shapes or the features change; a few
minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

import caprag
from caprag.noise import NoiseChannel
from caprag.retrieval import ranking
from caprag.text import match_form, normalize
from caprag.training.split import split_sentences

ROOT = Path(__file__).resolve().parent.parent
STRENGTHS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
RIDGE = 1e-5
MOST_CHARACTERS = 40
"""Of the sentences that the embedder's split is made of."""


def main() -> None:
    """Make readings, find candidates, fit, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="+", type=Path, help="files and folders of known sentences")
    parser.add_argument("--out", type=Path, default=ROOT / "caprag/retrieval/ranking.json")
    parser.add_argument("--embedder", default="shipped")
    parser.add_argument("--count", type=int, default=6000, help="readings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split-seed", type=int, default=0, help="that the embedder's training had")
    arguments = parser.parse_args()
    sentences = list(caprag.read_corpus(arguments.text))
    index = caprag.Index.build(sentences, caprag.load_embedder(arguments.embedder), progress=True)
    short = [sentence for sentence in sentences if len(sentence.text) <= MOST_CHARACTERS]
    split = split_sentences(short, seed=arguments.split_seed)
    texts = [short[i].text for i in (*split.dev, *split.test)]
    channel, generator = NoiseChannel.load(), np.random.default_rng(arguments.seed)
    examples: list[tuple[ranking.Table, ranking.Mask]] = []
    for place, strength in enumerate(STRENGTHS):
        chosen = [texts[i] for i in generator.choice(len(texts), arguments.count // len(STRENGTHS), replace=False)]
        readings = channel.corrupt(chosen, seed=arguments.seed + place, strength=strength)
        written = [normalize(reading) for reading in readings]
        found = index.candidates(written)
        table = ranking.features(written, found)
        start = 0
        for truth, row in zip(chosen, found, strict=True):
            right = np.array([form == match_form(truth) for form in row.forms], bool)
            # What was not proposed, or has no rival, teaches nothing.
            if right.any() and not right.all():
                examples.append((table[start : start + len(row)], right))
            start += len(row)

    def loss(weights: ranking.Table) -> tuple[float, ranking.Table]:
        total, gradient = 0.0, np.zeros(len(weights))
        for rows, right in examples:
            scores = rows @ weights
            chances = np.exp(scores - scores.max())
            chances /= chances.sum()
            hit = chances[right].sum()
            total -= np.log(hit)
            gradient += chances @ rows - (chances[right] @ rows[right]) / hit
        return float(total / len(examples) + RIDGE * weights @ weights), gradient / len(examples) + 2 * RIDGE * weights

    fitted = minimize(loss, np.zeros(len(ranking.FEATURES)), jac=True, method="L-BFGS-B").x
    first = np.mean([right[np.argmax(rows @ fitted)] for rows, right in examples])
    content = {
        "weights": {name: round(float(w), 3) for name, w in zip(ranking.FEATURES, fitted, strict=True)},
        "readings": len(examples), "seed": arguments.seed, "strengths": STRENGTHS,
        "embedder": index.embedder.fingerprint[:12],
    }  # fmt: skip
    arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{arguments.out}: {content['weights']}, the true sentence first for {first:.2%} of {len(examples)}")


if __name__ == "__main__":
    main()
