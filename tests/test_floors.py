"""The house plan: who may import whom, read off the source."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "caprag"
MODULES = sorted(p for p in PACKAGE.rglob("*.py"))

FLOORS = {
    "types": 0, "errors": 0, "text": 0, "paths": 0, "workers": 0, "line_breaks": 0, "progress": 0, "glyphs": 0,
    "corpus": 1, "recognition": 1, "retrieval": 1, "synthesis": 1, "evaluation": 1, "noise": 1,
    "reranking": 2, "pipeline": 3, "training": 4, "poems": 4, "review": 2, "results": 5, "cli": 5, "__main__": 6,
}  # fmt: skip
"""Room to floor; `ROOMS_WITHIN` has those of a room with several."""

ROOMS_WITHIN = {
    "evaluation.baselines": 4, "evaluation.systems": 4, "evaluation.retrieval": 4, "evaluation.sweep": 4,
    "evaluation.plots": 4, "evaluation.ladder": 4,
}  # fmt: skip

OWNERS = {
    "faiss": ("retrieval.vectors",),
    "tantivy": ("retrieval.lexical",),
    "sentence_transformers": ("retrieval.embedder", "reranking.cross_encoder", "training"),
    "transformers": (
        "evaluation.texts.bertscore", "recognition", "reranking.cross_encoder", "retrieval.embedder", "training",
    ),
    "rapidocr": ("recognition",),
    "onnx": ("recognition.reader", "training.reader"),
    "onnxruntime": ("recognition",),
    "tokenizers": ("recognition.reader",),
    "urllib3": ("recognition.json_client",),
    "cv2": ("recognition", "synthesis"),
    "av": ("synthesis",),
    "fontTools": ("synthesis",),
    "matplotlib": ("corpus", "evaluation.plots", "training.recognizer"),
    "bm25s": ("evaluation.baselines",),
    "sklearn": ("evaluation.baselines", "training.reader"),
    "symspellpy": ("evaluation.baselines",),
    "sacrebleu": ("evaluation.texts",),
    "PIL": ("recognition", "synthesis", "training"),
    "opencc": ("text",),
    "pysubs2": ("corpus",),
    "pyarrow": ("corpus", "retrieval.places", "retrieval.sentences", "retrieval.store", "synthesis"),
    "torch": (
        "evaluation.texts.bertscore", "recognition", "reranking.cross_encoder", "retrieval.embedder",
        "synthesis.dataset", "training",
    ),
    "rapidfuzz": (
        "corpus", "evaluation", "glyphs", "recognition.parts", "reranking", "retrieval.ranking", "review", "training",
    ),
    "typer": ("cli",),
    "jinja2": ("training",),
    "huggingface_hub": ("training",),
    "peft": ("training", "recognition"),
    "FlagEmbedding": ("training",),
}  # fmt: skip
"""Heavy package to the modules or folders that may import it."""


def name_of(path: Path) -> str:
    """``caprag/retrieval/index.py`` -> ``retrieval.index``; a folder's ``__init__`` is the folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(name: str) -> int:
    return ROOMS_WITHIN.get(name, FLOORS[name.partition(".")[0]])


def imports(path: Path, *, types_too: bool) -> set[str]:
    """Modules that a file imports anywhere in it, with or without what only type checkers see."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") and not types_too:
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # What is imported may be a module itself: from caprag.retrieval import storage.
            assert node.module is not None
            inner = [PACKAGE.parent.joinpath(*node.module.split("."), alias.name) for alias in node.names]
            whole = [i for i in inner if i.with_suffix(".py").exists() or i.is_dir()]
            found.update(".".join(i.relative_to(PACKAGE.parent).parts) for i in whole)
            if len(whole) < len(inner):
                found.add(node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_come_from_lower_floors(path: Path) -> None:
    name = name_of(path)
    if not name:
        pytest.skip("caprag/__init__ names what is public")
    room, floor = name.partition(".")[0], floor_of(name)
    for module in sorted(imports(path, types_too=True)):
        top, _, inner = module.partition(".")
        if top != "caprag":
            continue
        assert inner, f"{name} imports caprag itself"
        # Within a room, and on the ground and top floors, neighbours may meet.
        neighbours = inner.partition(".")[0] == room or floor in (0, 5)
        assert floor_of(inner) < floor or (neighbours and floor_of(inner) == floor), (
            f"{name} (floor {floor}) imports {inner} (floor {floor_of(inner)})"
        )


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_packages_have_one_owner(path: Path) -> None:
    name = name_of(path)
    for module in sorted(imports(path, types_too=False)):
        owners = OWNERS.get(module.partition(".")[0])
        if owners is not None:
            assert any(name == owner or name.startswith(owner + ".") for owner in owners), f"{name} imports {module}"


def test_every_room_has_a_floor() -> None:
    assert {name_of(path).partition(".")[0] for path in MODULES} - {""} <= FLOORS.keys()


def test_every_owner_that_exists_uses_what_it_owns() -> None:
    """A stale entry here would allow what nobody needs."""
    used = {(name_of(p), module.partition(".")[0]) for p in MODULES for module in imports(p, types_too=False)}
    for package, owners in OWNERS.items():
        there = [o for o in owners if (PACKAGE / o.replace(".", "/")).exists() or (PACKAGE / f"{o}.py").exists()]
        there += [o for o in owners if (PACKAGE / f"{o.replace('.', '/')}.py").exists()]
        users = {name for name, module in used if module == package}
        for owner in there:
            if package not in ("peft", "onnxruntime", "cv2"):
                assert any(u == owner or u.startswith(owner + ".") for u in users), f"{owner} does not use {package}"


def test_only_known_packages_are_imported() -> None:
    """Whatever is neither the standard library's nor ours is a declared dependency."""
    known = {*OWNERS, "numpy", "tqdm", "caprag", "safetensors", *sys.stdlib_module_names}
    seen = {module.partition(".")[0] for path in MODULES for module in imports(path, types_too=True)}
    assert seen <= known


def test_nothing_is_pickled_or_printed() -> None:
    for path in MODULES:
        names = {n.id for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Name)}
        assert not {module for module in imports(path, types_too=True) if module in ("pickle", "shelve", "marshal")}
        assert name_of(path) == "cli" or "print" not in names
