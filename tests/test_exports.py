"""The public names, and what importing them costs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import caprag

NAMES = [
    "Backgrounds", "CapragError", "Caption", "CaptionPictures", "CorpusError", "Embedder", "ErrorCounts",
    "FontError", "FrameError", "Hit", "Hypothesis", "Index", "IndexFolderError", "Kept", "MissingDependencyError",
    "ModelError", "NoiseChannel", "Pipeline", "PoemFinder", "RapidOCRRecognizer", "Recipe", "Recognizer", "Report",
    "Reranker", "RetrievalReport", "Segment", "Sentence", "Sentences", "SynthesisError", "Synthesizer",
    "TextReport", "VLMRecognizer", "__version__", "cer", "convert", "count_errors", "evaluate_retrieval",
    "evaluate_text", "load_cross_encoder", "load_embedder", "load_fonts", "load_recognizer", "make_verses",
    "match_form", "mean_edits", "mine_negatives",
    "normalize", "open_frame", "prepare_corpus", "read_corpus", "read_poems", "synthesize", "train_embedder",
]  # fmt: skip
HEAVY = (
    "torch", "faiss", "transformers", "sentence_transformers", "PIL", "pyarrow", "rapidocr", "onnxruntime", "cv2",
    "tantivy", "opencc", "pysubs2", "numpy", "rapidfuzz", "sklearn",
)  # fmt: skip


def run(code: str) -> str:
    """Run code in a new interpreter in which any warning is an error."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_the_names_are_these() -> None:
    assert caprag.__all__ == dir(caprag) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_loads(name: str) -> None:
    assert getattr(caprag, name) is getattr(caprag, name)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(caprag.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("caprag.")
        for alias in node.names
    }
    assert sorted([*(name for name in seen if name), "__version__"]) == sorted(NAMES)
    for name, path in seen.items():
        module, _, original = path.rpartition(".")
        assert name == original
        assert getattr(importlib.import_module(module), original) is getattr(caprag, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'caprag' has no attribute 'nothing'"):
        getattr(caprag, "nothing")  # noqa: B009
    with pytest.raises(ImportError):
        exec("from caprag import nothing")


def test_importing_loads_nothing_heavy_and_prints_nothing() -> None:
    heavy = run(f"import sys, caprag; dir(caprag); print([m for m in {HEAVY!r} if m in sys.modules])")
    assert heavy == "[]"


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("from caprag import Caption, Hit, CorpusError, normalize; normalize('好')", HEAVY),
        ("from caprag import read_corpus", HEAVY),
        ("from caprag import cer; cer(['a'], ['b'])", ("torch", "faiss", "transformers", "pyarrow", "PIL", "rapidocr")),
        ("from caprag import Reranker", ("torch", "faiss", "transformers", "pyarrow", "PIL", "rapidocr", "sklearn")),
        ("from caprag import Index, load_embedder", ("torch", "transformers", "sentence_transformers", "rapidocr")),
    ],
)
def test_a_name_brings_only_what_it_needs(statement: str, unwanted: tuple[str, ...]) -> None:
    assert run(f"import sys; {statement}; print([m for m in {unwanted!r} if m in sys.modules])") == "[]"


def test_every_module_lists_names_that_it_has() -> None:
    for folder in ("corpus", "evaluation", "recognition", "reranking", "retrieval"):
        module = importlib.import_module(f"caprag.{folder}")
        assert len(set(module.__all__)) == len(module.__all__)
        assert all(getattr(module, name) is not None for name in module.__all__)


def test_types_are_shipped_and_documented() -> None:
    assert Path(caprag.__file__).with_name("py.typed").exists()
    for name in NAMES:
        assert name == "__version__" or getattr(caprag, name).__doc__
