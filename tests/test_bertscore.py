from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from caprag.errors import ModelError
from caprag.evaluation.texts.bertscore import bert_score

hub: Any = transformers  # its annotations differ from version to version
CANDIDATES = ["a cat sits on the mat", "一隻貓坐著", "dogs run", "", "OK 啦"]
REFERENCES = [
    ["the cat sat on a mat", "a cat"],
    ["貓坐在地上", "一隻狗"],
    ["dogs run"],
    ["a"],
    ["OK 了", "OK 啦 好", "不"],
]


def by_hand(folder: Path, candidate: str, reference: str, layer: int) -> tuple[float, float, float]:
    """One text at a time, one pair of tokens at a time."""
    tokenizer, model = hub.AutoTokenizer.from_pretrained(folder), hub.AutoModel.from_pretrained(folder)

    def encode(text: str) -> tuple[list[Any], list[int]]:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            vectors = model(ids, output_hidden_states=True).hidden_states[layer][0].double().numpy()
        return list(vectors), ids[0].tolist()

    def side(one: tuple[list[Any], list[int]], other: tuple[list[Any], list[int]]) -> float:
        near = [
            max(float(v @ w) / math.sqrt(float(v @ v) * float(w @ w)) for w in other[0])
            for v, token in zip(*one, strict=True)
            if token not in (tokenizer.cls_token_id, tokenizer.sep_token_id)
        ]
        return sum(near) / len(near)

    a, b = encode(candidate), encode(reference)
    precision, recall = side(a, b), side(b, a)
    return precision, recall, 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("layer", [0, 1])
def test_scores_are_those_of_the_definition(tiny_folder: Path, layer: int) -> None:
    found = bert_score(CANDIDATES, REFERENCES, tiny_folder, layer=layer, device="cpu", batch_size=3)
    rows = list(zip(found.precision, found.recall, found.f1, strict=True))
    for row, candidate, truths in zip(rows, CANDIDATES, REFERENCES, strict=True):
        if not candidate:
            assert row == (0, 0, 0)
            continue
        scored = [by_hand(tiny_folder, candidate, truth, layer) for truth in truths]
        assert row == pytest.approx([max(column) for column in zip(*scored, strict=True)], abs=1e-5)


def test_precision_one_way_is_recall_the_other(tiny_folder: Path) -> None:
    one, other = [CANDIDATES[i] for i in (0, 1, 2, 4)], [REFERENCES[i][0] for i in (0, 1, 2, 4)]
    there = bert_score(one, [[text] for text in other], tiny_folder, device="cpu")
    back = bert_score(other, [[text] for text in one], tiny_folder, device="cpu")
    assert there.precision == pytest.approx(back.recall, abs=1e-6)
    assert there.f1 == pytest.approx(back.f1, abs=1e-6)
    same = bert_score(one, [[text] for text in one], tiny_folder, device="cpu")
    assert same.precision == same.recall == pytest.approx([1.0] * 4, abs=1e-6)


def test_a_batch_scores_as_single_items_do_and_long_texts_are_cut(tiny_folder: Path) -> None:
    candidates, references = [*CANDIDATES, "貓" * 200], [*REFERENCES, ["貓" * 300]]
    whole = bert_score(candidates, references, tiny_folder, device="cpu", batch_size=64)
    for i, (candidate, truths) in enumerate(zip(candidates, references, strict=True)):
        alone = bert_score([candidate], [truths], tiny_folder, device="cpu")
        assert alone.f1 == pytest.approx(whole.f1[i : i + 1], abs=1e-6)
        assert alone.signature == whole.signature
    assert whole.f1[-1] == pytest.approx(1, abs=1e-6)
    assert np.isfinite(whole.f1).all()


def test_what_is_wrong_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        bert_score(["a"], [["a"]], tmp_path / "none")
    with pytest.raises(ModelError, match="is not loaded as an encoder"):
        bert_score(["a"], [["a"]], tmp_path)
    with pytest.raises(ValueError, match=r"layer is 2 and .* has 1"):
        bert_score(["a"], [["a"]], tiny_folder, layer=2)
    with pytest.raises(ValueError, match="batch_size is 0"):
        bert_score(["a"], [["a"]], tiny_folder, batch_size=0)
