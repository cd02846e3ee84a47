"""Vectors with ids against NumPy, for each kind of FAISS index; and what is weighed while searching."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caprag.retrieval.vectors import VectorIndex, Vectors

DIMENSION = 24
FACTORIES = [
    "Flat", "HNSW16", "IVF16,Flat", "IVF16,SQ8", "PQ8", "SQ8", "SQfp16", "IVF16,PQ8x4fs", "OPQ8,IVF16,PQ8np",
    "OPQ8,PQ8np", "IVF16,SQ8,RFlat", "PCA12,SQ8", "PCA12,IVF16,Flat", "IVF16_HNSW8,Flat", "HNSW16_SQ8",
    "PQ8x4fs,RFlat",
]  # fmt: skip
CODED = ("PQ", "SQ", "PCA")


def unit(count: int, *, seed: int = 0) -> Vectors:
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSION))
    made: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return made


def made(factory: str, vectors: Vectors, ids: np.ndarray) -> VectorIndex:
    index = VectorIndex(DIMENSION, factory)
    if not index.is_trained:
        index.train(vectors)
    index.add(ids, vectors)
    return index


def recall(index: VectorIndex, vectors: Vectors, ids: np.ndarray, queries: Vectors) -> float:
    """The share of the nearest vectors that are found among the first ten."""
    nearest = ids[(queries @ vectors.T).argmax(1)]
    found, cosines = index.search(queries, 10)
    assert found.shape == cosines.shape == (len(queries), 10)
    assert (np.diff(cosines, axis=1) <= 1e-6).all()
    assert (np.abs(cosines) <= 1).all()
    return float((found == nearest[:, None]).any(1).mean())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("factory", FACTORIES)
def test_added_removed_saved_and_opened(factory: str, tmp_path: Path) -> None:
    vectors, queries = unit(1000), unit(1000)[:200] + 0.05 * unit(200, seed=1)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    ids = np.arange(1000) * 7 + 3
    index = made(factory, vectors, ids)
    assert (len(index), index.dimension) == (1000, DIMENSION)
    assert recall(index, vectors, ids, queries) > 0.9
    gone = np.arange(0, 1000, 3)
    left = np.setdiff1d(np.arange(1000), gone)
    index.remove(ids[gone])
    assert len(index) == len(left)
    assert not np.isin(index.search(queries, 50)[0], ids[gone]).any()
    # Those whose vector has gone have none that is near.
    queries = queries[left[left < 200]]
    assert recall(index, vectors[left], ids[left], queries) > 0.9
    more = unit(50, seed=2)
    index.add(np.arange(10_000, 10_050), more)
    # Codes of four bits know little of what they were not trained on.
    at_least = 0.8 if "x4fs" in factory else 0.9
    everything, numbers = np.concatenate([vectors[left], more]), np.concatenate([ids[left], np.arange(10_000, 10_050)])
    index.save(tmp_path / "a.faiss")
    before = (tmp_path / "a.faiss").read_bytes()
    for mapped in (True, False):
        opened = VectorIndex.load(tmp_path / "a.faiss", factory, mapped=mapped)
        (found, cosines), (same, others) = opened.search(queries, 10), index.search(queries, 10)
        assert found.tolist() == same.tolist()
        np.testing.assert_allclose(cosines, others, atol=1e-6)
        assert recall(opened, everything, numbers, np.concatenate([queries, more])) > at_least
    # What was opened whole can be changed, and its file stays.
    opened.remove([10_000])
    opened.add([5], more[:1])
    assert 5 in opened.search(more[:1], 1)[0] or any(code in factory for code in CODED)
    assert (tmp_path / "a.faiss").read_bytes() == before


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "SQ8"])
def test_blocks_give_back_ids_and_vectors(factory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caprag.retrieval.vectors._ROWS_AT_A_TIME", 64)
    vectors, ids = unit(300), np.arange(300)[::-1] * 2
    parts = list(made(factory, vectors, ids).blocks())
    assert len(parts) == 5
    assert np.concatenate([part for part, _ in parts]).tolist() == ids.tolist()
    np.testing.assert_allclose(np.concatenate([rows for _, rows in parts]), vectors, atol=0.02)


def test_inverted_lists_have_no_order() -> None:
    with pytest.raises(RuntimeError, match="inverted lists"):
        list(made("IVF4,Flat", unit(200), np.arange(200)).blocks())


def test_exact_search_is_numpy_s_in_any_batch() -> None:
    vectors, queries = unit(500), unit(60, seed=3)
    index = made("Flat", vectors, np.arange(500))
    expected = np.argsort(-(queries @ vectors.T), axis=1)[:, :7]
    for size in (1, 7, 60):
        parts = [index.search(queries[i : i + size], 7) for i in range(0, 60, size)]
        assert np.concatenate([ids for ids, _ in parts]).tolist() == expected.tolist()
    assert index.search(queries[:1], 10**6)[0].shape == (1, 500)
    assert VectorIndex(DIMENSION, "Flat").search(queries, 5)[0].tolist() == [[-1]] * 60


def test_an_id_may_stand_for_several_vectors() -> None:
    vectors = unit(6)
    index = made("Flat", vectors, np.array([4, 4, 4, 9, 9, 2]))
    assert index.search(vectors, 1)[0].ravel().tolist() == [4, 4, 4, 9, 9, 2]
    index.remove([4])
    assert len(index) == 3
    assert 4 not in index.search(vectors, 3)[0]


# --- what is weighed while searching ------------------------------------------------------------------------------


def test_more_cells_find_more_and_all_cells_find_all() -> None:
    vectors, queries = unit(2000), unit(100, seed=5)
    index = made("IVF64,Flat", vectors, np.arange(2000))
    nearest = (queries @ vectors.T).argmax(1)

    def share() -> float:
        return float((index.search(queries, 1)[0][:, 0] == nearest).mean())

    first = share()
    shares = []
    for nprobe in (1, 8, 64):
        index.tune(f"nprobe={nprobe}")
        shares.append(share())
    assert shares == sorted(shares)
    assert shares[0] < first < shares[2] == 1.0
    # Eight of 64 cells are looked at where nothing is said.
    assert shares[1] == first
    index.tune("")
    assert share() == first


@pytest.mark.parametrize(
    ("factory", "names"),
    [
        ("Flat", []),
        ("SQ8", []),
        ("IVF16,SQ8", ["nprobe"]),
        ("HNSW16", ["efSearch"]),
        ("PCA12,HNSW16", ["efSearch"]),
        ("OPQ8,IVF16,PQ8", ["nprobe"]),
        ("IVF16_HNSW8,Flat", ["nprobe", "efSearch"]),
        ("IVF16,SQ8,RFlat", ["nprobe", "k_factor_rf"]),
        ("PQ8x4fs,RFlat", ["k_factor_rf"]),
    ],
)
def test_each_kind_has_its_parameters(factory: str, names: list[str]) -> None:
    index = VectorIndex(DIMENSION, factory)
    assert index.tunable() == names
    assert index.cells == (16 if "IVF" in factory else 0)
    if names:
        index.tune(",".join(f"{name}=8" for name in names))
    for name in {"nprobe", "efSearch", "k_factor_rf"} - set(names):
        with pytest.raises(ValueError, match=f"'{name}=8' does not go with the factory '{factory}'"):
            index.tune(f"{name}=8")


@pytest.mark.parametrize("wrong", ["nprobe=0", "nprobe=-1", "nprobe=x", "nprobe=nan", "nprobe=1e99", "nprobe", "=", ""])
def test_a_wrong_parameter_changes_nothing(wrong: str) -> None:
    vectors, queries = unit(2000), unit(100, seed=5)
    index = made("IVF64,Flat", vectors, np.arange(2000))
    index.tune("nprobe=2")
    before = index.search(queries, 5)
    with pytest.raises(ValueError, match="search parameters"):
        index.tune(f"nprobe=64,{wrong}")
    for one, other in zip(index.search(queries, 5), before, strict=True):
        np.testing.assert_array_equal(one, other)
