"""What features weigh: sums and trees say what scikit-learn says, and can tell why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caprag.reranking import FEATURES, Example, fit_reranker
from caprag.reranking.decision import Decision
from caprag.reranking.fitting import ENOUGH_FOR_TREES
from caprag.reranking.learners import fit_trees
from caprag.reranking.weights import CASES, Linear, Tree, Trees

NAMES = ("edits", "margin", "doubt")
VALUES = st.fixed_dictionaries(dict.fromkeys(NAMES, st.floats(-100, 100)))
STUMP = Tree(2, (1, -1, -1), (0.5, 0.0, 0.0), (1, -1, -1), (2, -1, -1), (0.0, -1.0, 1.0))


def pictured(count: int, seed: int, noise: float = 0.0) -> list[Example]:
    """Snap where picture and edits agree, which no weighted sum can say; keep where there is no doubt."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        margin, edits, doubt = rng.uniform(-60, 10), rng.integers(1, 8), rng.uniform(0, 2)
        case = "snap" if (margin > -25) == (edits < 4) else "keep" if doubt < 1 else "neither"
        if rng.random() < noise:
            case = ("snap", "keep", "neither")[int(rng.integers(3))]
        features = {
            **dict.fromkeys(FEATURES, 0.0), "margin": margin, "edits": float(edits), "folded_edits": float(edits),
            "doubt": doubt,
        }  # fmt: skip
        rows.append(Example(features, False, case == "keep", case == "snap", number % 2 == 0, f"{number % 4}", True))
    return rows


def test_trees_say_what_scikit_learn_says() -> None:
    """A classifier of the same settings and seed, asked itself."""
    ensemble = pytest.importorskip("sklearn.ensemble", reason="the train extra is not installed")
    examples = pictured(600, 0)
    values = np.array([[e.features[name] for name in FEATURES] for e in examples if e.features], np.float32)
    model = ensemble.GradientBoostingClassifier(
        n_estimators=150,
        learning_rate=0.06,
        max_depth=None,
        max_leaf_nodes=8,
        min_samples_leaf=20,
        subsample=0.5,
        random_state=3,
    ).fit(values, [CASES.index(e.case) for e in examples])
    decision = Decision(fit_trees(examples, FEATURES, seed=3))
    found = [decision.probabilities(e.features) for e in examples if e.features]
    np.testing.assert_allclose(found, model.predict_proba(values)[:, [2, 1]], atol=1e-4)


def test_trees_learn_what_a_sum_can_not() -> None:
    seen, fresh = pictured(2000, 1), pictured(500, 2)
    decision = Decision(fit_trees(seen, FEATURES, seed=0))
    right = [(decision.probabilities(e.features or {})[0] > 0.5) == (e.case == "snap") for e in fresh]
    assert np.mean(right) > 0.97
    assert fit_trees(seen, FEATURES, seed=0) == decision.weights


def test_pictures_are_weighed_by_trees_where_they_are_many() -> None:
    texts = [replace(e, judged=False) for e in pictured(300, 5)]
    counts = (ENOUGH_FOR_TREES // 2, ENOUGH_FOR_TREES)
    few, many = (fit_reranker([*texts, *pictured(count, 4, 0.3)]) for count in counts)
    assert few.picture is not None
    assert many.picture is not None
    assert isinstance(few.picture.weights, Linear)
    assert isinstance(many.picture.weights, Trees)
    assert isinstance(many.line.weights, Linear)
    # Counted by trees that were grown without the line: those it was in have learnt it by heart.
    assert many.picture.lines == ENOUGH_FOR_TREES // 2
    same = pictured(ENOUGH_FOR_TREES, 4, 0.3)
    own = [many.picture.probabilities(e.features or {})[0] for e in same if harmless(e)]
    assert len(many.picture.harmful) > sum(chance >= 0.5 for chance in own)


def harmless(example: Example) -> bool:
    return not example.known and example.case == "keep"


def test_what_differs_by_region_alone_is_no_picture_s_business() -> None:
    texts, pictures = [replace(e, judged=False) for e in pictured(300, 5)], pictured(1200, 4)
    regional = [replace(e, features={**(e.features or {}), "folded_edits": 0.0}) for e in pictured(300, 6)]
    assert fit_reranker([*texts, *pictures, *regional]).picture == fit_reranker([*texts, *pictures]).picture


@given(VALUES)
def test_shares_add_up(features: dict[str, float]) -> None:
    deeper = Tree(
        0, (0, 2, -1, -1, -1), (1.0, -3.5, 0.0, 0.0, 0.0), (1, 2, -1, -1, -1), (4, 3, -1, -1, -1),
        (0.1, 0.5, 2.0, -0.25, -0.75),
    )  # fmt: skip
    weights = dict(zip(NAMES, (0.5, -1.0, 2.0), strict=True))
    keep = dict(zip(NAMES, (1.5, 0.25, -2.0), strict=True))
    for what in (Trees(NAMES, (0.25, -1.0, 2.0), (STUMP, deeper)), Linear(weights, keep, -1.0, 0.5)):
        shares = what.shares(features)
        assert set(shares) == {"bias", *NAMES}
        summed = np.sum(list(shares.values()), axis=0)
        np.testing.assert_allclose(summed, what.log_odds(features), atol=1e-9)


def test_a_stump_by_hand() -> None:
    trees = Trees(NAMES, (0.25, 0.0, 0.0), (STUMP,))
    assert trees.log_odds({"edits": 0.0, "margin": 0.5, "doubt": 9.0}) == (-1.25, -0.25)
    assert trees.log_odds({"edits": 0.0, "margin": 0.51, "doubt": 9.0}) == (0.75, -0.25)
    assert trees.shares({"edits": 0.0, "margin": 0.51, "doubt": 9.0})["margin"] == (1.0, 0.0)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [("case", 3, ValueError), ("feature", (3, -1, -1), ValueError), ("feature", (1, -1), ValueError),
     ("feature", (1.5, -1, -1), TypeError), ("left", (0, -1, -1), ValueError), ("right", (3, -1, -1), ValueError),
     ("left", (-1, -1, -1), ValueError), ("value", (0.0, float("nan"), 0.0), ValueError), ("value", (), ValueError),
     ("limit", (float("inf"), 0.0, 0.0), ValueError), ("limit", ("x", 0.0, 0.0), TypeError)],
)  # fmt: skip
def test_a_tree_that_is_none(name: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        Trees(NAMES, (0.0, 0.0, 0.0), (replace(STUMP, **{name: value}),))  # type: ignore[arg-type]
