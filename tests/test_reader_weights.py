"""The weights that come with caprag: they load, fit into their limit, and their neck reads clean captions."""

from __future__ import annotations

import json
from pathlib import Path

import torch

import caprag
from caprag.recognition import RapidOCRRecognizer
from caprag.recognition.reader import ReaderForConditionalGeneration, ReaderProcessor
from caprag.training.reader.run import ctc_tokens

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "caprag/recognition/reader/weights"


def test_the_neck_reads_clean_captions_as_rapidocr_does() -> None:
    """PP-OCRv6's own reading of the same line, of which the reader's neck began."""
    model = ReaderForConditionalGeneration.from_pretrained(WEIGHTS, dtype=torch.float32).eval()
    processor = ReaderProcessor.from_pretrained(WEIGHTS)
    frames = [caprag.open_frame(path) for path in sorted((ROOT / "indexes/demo/frames").glob("*.jpg"))[:4]]
    ocr = RapidOCRRecognizer(n_threads=1)
    alike = lines = 0
    for parts, (read, *_) in zip(ocr.find_parts_batch(frames), ocr.recognize_batch(frames), strict=True):
        rows = read.text.replace(" ", "\n").split("\n")
        if len(parts) != len(rows):
            continue
        for part, row in zip(parts, rows, strict=True):
            inputs = processor(images=[part.image])
            with torch.no_grad():
                features = model.picture_features(inputs["pixel_values"], inputs["pixel_widths"])[0]
                told = ctc_tokens(model, model.steps(features[None]))[0]
            alike += caprag.match_form(processor.tokenizer.decode(told)) == caprag.match_form(row)
            lines += 1
    assert lines >= 3
    assert alike >= lines - 1


def test_weights_are_small_and_say_how_they_were_made() -> None:
    assert (WEIGHTS / "model.safetensors").stat().st_size <= 16_000_000
    recipe = json.loads((WEIGHTS / "recipe.json").read_text(encoding="utf-8"))
    assert 0 < recipe["figures"]["cer"] < 1
    assert "PaddleOCR" in (WEIGHTS / "NOTICE").read_text(encoding="utf-8")
