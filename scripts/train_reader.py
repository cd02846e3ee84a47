"""Make the shipped reader: python scripts/train_reader.py TEXT... --backgrounds FOLDER --work FOLDER.

Draws damaged lines of captions; makes a new reader whose neck and characters begin where the tower's own recogniser
stands; lets the tower's last two stages and the neck get used to damage; keeps the tower's features of all lines; lets
the language model learn from text alone, then from the lines; measures and saves. Each phase leaves its result in
--work, and a second run goes on where the first was stopped, within a phase too.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import caprag
from caprag.recognition.reader import ReaderForConditionalGeneration, ReaderProcessor
from caprag.synthesis.backgrounds import Backgrounds
from caprag.synthesis.fonts import load_fonts
from caprag.text import normalize
from caprag.training.reader import (
    CaptionLines,
    LineStore,
    ReaderOptions,
    ReaderSize,
    TuningOptions,
    make_features,
    make_maps,
    make_pixels,
    new_reader,
    train_reader,
    tune_tower,
)
from caprag.training.reader.features import SHARD
from caprag.training.reader.initial import load_recognizer_weights
from caprag.training.reader.loop import evaluate_features, fit_blank
from caprag.training.reader.varied import vary
from caprag.training.split import split_sentences

ROOT = Path(__file__).resolve().parent.parent
MOST_CHARACTERS = 30
VARIED = 0.5
"""Sentences that come again with marks, names and figures, as a share of all."""
TRADITIONAL = 0.6
"""Share of the lines in Simplified characters that are learnt in Traditional ones."""
ALIKE = str.maketrans(
    "兑囱媪悦愠氲温煴腽葱户捝敍棁涚税緼脱藴蜕衞説輼醖鈎鋭閲", "兌囪媼悅慍氳溫熅膃蔥戶挩敘梲涗稅縕脫蘊蛻衛說轀醞鉤銳閱"
)
MOST_BYTES = 16_000_000
SAMPLE = 200


def main() -> None:
    """Go through the phases, and print the figures."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    train, held_out = sentences(arguments)
    print(f"{len(train)} sentences to learn, {len(held_out)} held out", flush=True)
    for name, texts in (("train", train), ("held_out", held_out)):
        (work / f"{name}.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    pixels = {}
    for name, texts, count, seed in (
        ("train", train, arguments.lines, 1),
        ("held_out", held_out, arguments.measured, 2),
    ):
        lines = functools.partial(
            caption_lines, work / f"{name}.txt", arguments.backgrounds, arguments.fonts, count, seed
        )
        digest = hashlib.sha256("\n".join(map(str, (texts, seed, arguments.fonts, arguments.backgrounds))).encode())
        pixels[name] = make_pixels(
            lines, count, work / f"pixels-{name}", about=digest.hexdigest(), workers=arguments.workers, progress=True
        )
    few = -(-(arguments.described or arguments.lines) // SHARD)
    pixels["train"] = LineStore(pixels["train"].paths[:few])
    maps = {
        name: make_maps(store, work / f"maps-{name}", workers=arguments.workers, progress=True)
        for name, store in pixels.items()
    }
    fewer = -(-(arguments.learnt or arguments.lines) // SHARD)
    pixels["train"] = LineStore(pixels["train"].paths[:fewer])
    if not (work / "new").exists():
        size = ReaderSize(hidden=arguments.hidden, layers=arguments.layers)
        new_reader(work / "new.part", characters(train), size, seed=arguments.seed)
        (work / "new.part").rename(work / "new")
    tuning = TuningOptions(steps=arguments.tower_steps, half=arguments.half, seed=arguments.seed)
    base = arguments.tuned or work / "new"
    tuned: dict[str, Any] = {"step": 0, "steps": 0, "seconds": 0.0}
    if arguments.tower_steps:
        tuned = tune_tower(
            maps["train"], base, work / "tuned", tuning, held_out=maps["held_out"].first(SAMPLE),
            seconds=arguments.seconds, progress=True,
        )  # fmt: skip
    elif not (work / "tuned").exists():
        shutil.copytree(base, work / "tuned")
    print(tuned, flush=True)
    if tuned["step"] < tuned["steps"]:
        print("not done; the same command goes on", flush=True)
        return
    stores = {
        name: make_features(
            store, work / f"features-{name}", reader=work / "tuned", workers=arguments.workers, progress=True
        )
        for name, store in pixels.items()
    }
    if not (work / "begun").exists():
        model = ReaderForConditionalGeneration.from_pretrained(work / "tuned", dtype=torch.float32)
        print(f"steps without a character known for {fit_blank(model, stores['train']):.2%}", flush=True)
        model.save_pretrained(work / "begun.part")
        ReaderProcessor.from_pretrained(work / "tuned").save_pretrained(work / "begun.part")
        (work / "begun.part").rename(work / "begun")
    options = ReaderOptions(
        epochs=arguments.epochs, batch_size=arguments.batch_size, learning_rate=arguments.learning_rate,
        text_steps=arguments.text_steps, ctc_weight=arguments.ctc_weight, neck_rate=arguments.neck_rate,
        half=arguments.half, seed=arguments.seed,
    )  # fmt: skip
    result = train_reader(
        stores["train"], work / "begun", work / "trained", options, sentences=train,
        held_out=stores["held_out"].first(SAMPLE), seconds=arguments.seconds, progress=True,
    )  # fmt: skip
    print(result, flush=True)
    if result["step"] < result["steps"]:
        print("not done; the same command goes on", flush=True)
        return
    hours = (tuned["seconds"] + result["seconds"]) / 3600
    figures = {**measure(work / "trained", stores["held_out"]), "hours": hours}
    save(work / "trained", arguments.out, arguments, {"tuning": tuning, "training": options}, figures)


def sentences(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return what is learnt and what is held out: by whole documents, some Simplified ones made Traditional."""
    read = [s for s in caprag.read_corpus(arguments.text) if 1 < len(s.text) <= MOST_CHARACTERS and "\n" not in s.text]
    split = split_sentences(read, seed=arguments.seed)
    parts = ([read[i].text for i in places] for places in (split.train, (*split.dev, *split.test)))
    # A character that the reader can't write is not to be learnt as one that is unknown.
    if arguments.tuned is None:
        known = {c for c in load_recognizer_weights().characters if len(c) == 1}
    else:
        known = set(ReaderProcessor.from_pretrained(arguments.tuned).tokenizer.get_vocab())
    learnt, kept = ([text for text in turned(part) if known.issuperset(text)] for part in parts)
    learnt, kept = (vary(part, VARIED, longest=MOST_CHARACTERS, seed=arguments.seed) for part in (learnt, kept))
    return [text for text in learnt if known.issuperset(text)], [text for text in kept if known.issuperset(text)]


def turned(texts: list[str]) -> list[str]:
    """Return the texts, a part of those in Simplified characters in Traditional ones, these as captions write them."""
    traditional = [caprag.convert(text, "twp") for text in texts]
    wanted = [int.from_bytes(text.encode()[-3:], "big") % 100 < TRADITIONAL * 100 for text in texts]
    chosen = [other if want else text for text, other, want in zip(texts, traditional, wanted, strict=True)]
    return [text for text in dict.fromkeys(usual(normalize(text)) for text in chosen) if text]


def usual(text: str) -> str:
    """Write a traditional text with Big5's one of two letters that fonts draw alike: no picture tells them apart."""
    traditional = any("\u4e00" <= c <= "\u9fff" and _has(c, "big5") and not _has(c, "gb2312") for c in text)
    return text.translate(ALIKE) if traditional else text


def _has(character: str, encoding: str) -> bool:
    return character.encode(encoding, "ignore") != b""


def caption_lines(path: Path, backgrounds: Path, fonts: list[str], count: int, seed: int) -> CaptionLines:
    """Make the source of lines."""
    texts = path.read_text(encoding="utf-8").splitlines()
    found = load_fonts(fonts, sample=texts[:: max(1, len(texts) // 200)], on_error=lambda _: None)
    return CaptionLines(texts, Backgrounds([backgrounds]), found, count=count, seed=seed)


def characters(texts: list[str]) -> list[str]:
    """Return what the reader can write, in the order of code points: of the texts, and what else is common."""
    known = {c for c in load_recognizer_weights().characters if len(c) == 1}
    common = {*map(chr, range(0x20, 0x7F)), *map(chr, range(0x3041, 0x3100)), *map(chr, range(0x3105, 0x312A))}
    for encoding, first, last in (("big5", 0xA440, 0xC67E), ("gb2312", 0xB0A1, 0xD7F9)):
        # The ideographs in daily use come first in either standard.
        common |= {c for code in range(first, last + 1) for c in code.to_bytes(2, "big").decode(encoding, "ignore")}
    written = {c for text in texts for c in text}
    return sorted((common & known) | {c for c in written if c in known})


def measure(folder: Path, store: LineStore) -> dict[str, float]:
    """Read all lines that were held out."""
    model = ReaderForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    return evaluate_features(model, ReaderProcessor.from_pretrained(folder), store)


def save(
    trained: Path, out: Path, arguments: argparse.Namespace, options: dict[str, TuningOptions | ReaderOptions],
    figures: dict[str, float],
) -> None:  # fmt: skip
    """Write the reader in half precision, with how it was made."""
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model = ReaderForConditionalGeneration.from_pretrained(trained).to(torch.float16)
    model.config.ctc_share = arguments.ctc_share
    model.save_pretrained(part)
    ReaderProcessor.from_pretrained(trained).save_pretrained(part)
    names = ("lines", "described", "learnt", "measured", "hidden", "layers", "ctc_share", "seed")
    before = arguments.tuned / "recipe.json" if arguments.tuned else None
    recipe = {
        "options": {name: getattr(arguments, name) for name in names},
        "before": json.loads(before.read_text(encoding="utf-8")) if before and before.exists() else None,
        **{name: asdict(chosen) for name, chosen in options.items()},
        "figures": figures,
    }
    (part / "recipe.json").write_text(json.dumps(recipe, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    size = (part / "model.safetensors").stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{part}: the weights have {size} bytes, more than {MOST_BYTES}; take a smaller network")
    for name in ("README.md", "NOTICE"):
        if (out / name).exists():
            shutil.copy(out / name, part)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    print(f"{out}: {size / 1e6:.1f} MB, {figures}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="+", type=Path, help="files and folders of sentences")
    parser.add_argument("--backgrounds", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--fonts", nargs="*", default=[], help="what is installed if not given")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made on the way")
    parser.add_argument("--out", type=Path, default=ROOT / "caprag/recognition/reader/weights")
    parser.add_argument("--lines", type=int, default=80_000, help="captions to draw")
    parser.add_argument("--described", type=int, help="how many of them are learnt from; all if not given")
    parser.add_argument("--learnt", type=int, help="how many of these the language model learns from; all if not given")
    parser.add_argument("--measured", type=int, default=1_000, help="captions of held-out documents")
    parser.add_argument("--tuned", type=Path, help="go on from this reader's tower, neck and language model")
    parser.add_argument("--tower-steps", type=int, default=2_000, help="of tuning the tower; 0 leaves it as it is")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--text-steps", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--ctc-weight", type=float, default=0.0, help="of CTC's loss in the last phase")
    parser.add_argument("--ctc-share", type=float, default=1.0, help="power of CTC's word when the reader reads")
    parser.add_argument("--neck-rate", type=float, default=0.0, help="learning rate of the neck in the last phase")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop training after so long")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw")
    parser.add_argument("--half", action="store_true", help="train in bfloat16 where the processor has it")
    parser.add_argument("--threads", type=int, default=2, help="of the training")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
