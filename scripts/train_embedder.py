"""Train the shipped embedder from scratch: python scripts/train_embedder.py TEXT... --out caprag/retrieval/embedder.

A small BERT with BGE's head (CLS, normalised) learns to put a noisy reading next to its sentence: InfoNCE over the
batch at temperature 0.02, one vector a character, look-alike characters starting close together (from
caprag/glyphs.npz). Half an hour on two cores; writes a checkpoint an epoch to --work and resumes from it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizer

import caprag
from caprag.glyphs import GlyphTable

ROOT = Path(__file__).resolve().parent.parent
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MAX_LENGTH = 64
MAX_CHARACTERS = 40
GROUP = 128


class Noise:
    """Turns a sentence into what a reader might make of it.

    Substitutions by look-alikes, by variants and at random, drops, doubled and invented characters, lost or added
    punctuation and spaces, and cut ends; a few edits in a hundred characters for most texts, many for some.
    """

    def __init__(self, glyphs: GlyphTable, alphabet: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.alphabet = alphabet
        known = [c for c in glyphs.characters if "\u4e00" <= c <= "\u9fff"]
        self.alike = glyphs.neighbours(known, 12)

    def variant(self, text: str) -> str:
        """Rewrite a text in another region's characters now and then."""
        draw = self.random.random()
        return caprag.convert(text, "s") if draw < 0.12 else caprag.convert(text, "tw") if draw < 0.2 else text

    def __call__(self, text: str) -> str:
        """Return one noisy reading of a text; never empty."""
        draw = self.random
        rate = 0.0 if draw.random() < 0.15 else min(0.6, draw.expovariate(1 / 0.16))
        out: list[str] = []
        for character in self.variant(text):
            if draw.random() >= rate:
                out.append(character)
                continue
            kind = draw.random()
            if kind < 0.55:
                alike = self.alike.get(character)
                out.append(draw.choice(alike) if alike else draw.choice(self.alphabet))
            elif kind < 0.72:
                out.append(draw.choice(self.alphabet))
            elif kind < 0.82:
                out += [character, draw.choice(self.alphabet)]
            # else: the character is lost
        if len(out) > 5 and draw.random() < 0.06:
            cut = draw.randint(1, len(out) // 3)
            out = out[cut:] if draw.random() < 0.5 else out[:-cut]
        if draw.random() < 0.3:
            out = [c for c in out if c.isalnum()]
        return "".join(out) or text


def save_tokenizer(folder: Path, characters: list[str]) -> BertTokenizer:
    """Write a vocabulary of single characters and return its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [f"##{c}" for c in characters if c.isascii() and c.isalnum()]
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *characters, *letters])}
    tokenizer = BertTokenizer(
        vocab=vocabulary, do_lower_case=True, strip_accents=False, tokenize_chinese_chars=True,
        model_max_length=MAX_LENGTH,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return tokenizer


def initial_embeddings(vocabulary: dict[str, int], glyphs: GlyphTable, size: int, seed: int) -> torch.Tensor:
    """Return token embeddings in which look-alikes start near each other: (tokens, size), float32."""
    generator = np.random.default_rng(seed)
    shape = glyphs.vectors.shape[1]
    # A random rotation spreads the shape over all dimensions; the rest keeps the characters apart.
    spread = np.linalg.qr(generator.normal(size=(size, size)))[0][:shape]
    table = generator.normal(scale=0.02, size=(len(vocabulary), size))
    for token, row in vocabulary.items():
        place = glyphs.index.get(token.removeprefix("##"))
        if place is not None:
            table[row] += 0.25 * glyphs.vectors[place] @ spread
    return torch.from_numpy(table.astype(np.float32))


def main() -> None:
    """Train, save, and print the recall of a first test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="+", help="files and folders of known sentences")
    parser.add_argument("--out", type=Path, default=ROOT / "caprag/retrieval/embedder")
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--temperature", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    sentences = [s.text for s in caprag.read_corpus(arguments.text) if len(s.text) <= MAX_CHARACTERS]
    glyphs = GlyphTable.load()
    tokenizer = save_tokenizer(arguments.work / "tokenizer", glyphs.characters)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=arguments.hidden, num_hidden_layers=arguments.layers,
        num_attention_heads=4, intermediate_size=4 * arguments.hidden, max_position_embeddings=MAX_LENGTH,
        attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False)
    model.to(torch.device(device))  # type: ignore[arg-type]
    table = initial_embeddings(tokenizer.get_vocab(), glyphs, arguments.hidden, arguments.seed)
    model.embeddings.word_embeddings.weight.data.copy_(table)

    alphabet = "".join(sorted({c for s in sentences for c in s if "\u4e00" <= c <= "\u9fff"}))
    steps = len(sentences) // arguments.batch_size
    total = steps * arguments.epochs
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(i / 200, 0.5 * (1 + math.cos(math.pi * min(i / total, 1)))) + 1e-3
    )
    checkpoint = arguments.work / "checkpoint.pt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["epoch"] + 1

    def embed(texts: list[str]) -> torch.Tensor:
        # Texts of like length go through together, so that little is spent on padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        parts = []
        for start in range(0, len(order), GROUP):
            group = [texts[i] for i in order[start : start + GROUP]]
            batch = tokenizer(group, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
            parts.append(model(**batch.to(device)).last_hidden_state[:, 0])
        back = torch.tensor(order, device=device).argsort()
        return torch.nn.functional.normalize(torch.cat(parts)[back], dim=1)

    for epoch in range(first, arguments.epochs):
        noise = Noise(glyphs, alphabet, arguments.seed * 1000 + epoch)
        order = np.random.default_rng(arguments.seed * 1000 + epoch).permutation(len(sentences))
        started, losses = time.perf_counter(), []
        for step in range(steps):
            rows = order[step * arguments.batch_size : (step + 1) * arguments.batch_size]
            positives = [sentences[i] for i in rows]
            similarity = embed([noise(s) for s in positives]) @ embed(positives).T
            keys = [caprag.match_form(s) for s in positives]
            # Sentences that are equal when compared are no negatives of each other.
            same = torch.tensor([[a == b for b in keys] for a in keys]) & ~torch.eye(len(keys), dtype=torch.bool)
            logits = similarity.masked_fill(same.to(device), -1e4) / arguments.temperature
            target = torch.arange(len(keys), device=device)
            loss = torch.nn.functional.cross_entropy(logits, target)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        rate = steps * arguments.batch_size / (time.perf_counter() - started)
        print(
            f"epoch {epoch + 1}/{arguments.epochs}: loss {np.mean(losses):.4f}, {rate:.0f} pairs/s",
            flush=True,
        )
        torch.save(
            {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
             "epoch": epoch}, checkpoint,
        )  # fmt: skip

    plain = arguments.work / "bert"
    model.to(torch.float16)  # type: ignore[arg-type]
    model.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    encoder = Transformer(str(plain), max_seq_length=MAX_LENGTH)
    head = Pooling(arguments.hidden, pooling_mode="cls")
    whole = SentenceTransformer(modules=[encoder, head, Normalize()]).half()
    # The model card is written by hand.
    whole.save_pretrained(str(arguments.out), create_model_card=False)
    options = {k: v for k, v in vars(arguments).items() if k not in ("out", "work", "text", "threads")}
    recipe = {"sentences": len(sentences), **options}
    (arguments.out / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n")


if __name__ == "__main__":
    main()
