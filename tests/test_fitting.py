"""Fitting recovers what was put in, and refuses what can't be learnt from."""

from __future__ import annotations

import random

import numpy as np
import pytest

from caprag.errors import MissingDependencyError
from caprag.reranking import FEATURES, Example, Reranker, fit_reranker
from caprag.reranking.confusions import load_glyphs
from caprag.reranking.features import best_candidate
from caprag.types import Hit, Hypothesis

HIT = Hit(0, "妳在開玩笑嗎", 0.5)


def example(case: str, *, exact: bool = False, **features: float) -> Example:
    values = {**dict.fromkeys(FEATURES, 0.0), **features}
    return Example(values, exact, case == "keep", case == "snap")


def described(read: str, truth: str, hits: list[Hit], familiar: int = 0) -> Example:
    reading = Hypothesis(read)
    return Example.of(reading, best_candidate(reading, hits, lambda gram: familiar, load_glyphs()), truth)


def separable(number: int = 300, seed: int = 0) -> list[Example]:
    """Snap where edits are few, keep where the pairs are familiar, neither where neither is so."""
    generator = random.Random(seed)
    examples = []
    for i in range(number):
        case = ("snap", "keep", "neither")[i % 3]
        edits = generator.uniform(0, 1) if case == "snap" else generator.uniform(3, 6)
        familiar = generator.uniform(4, 8) if case == "keep" else generator.uniform(0, 2)
        examples.append(example(case, edits=edits, familiarity=familiar))
    return examples


def answers(reranker: Reranker, examples: list[Example]) -> list[str]:
    found = []
    for each in examples:
        assert each.features is not None
        snap, keep = reranker.line.probabilities(each.features)
        rest = 1 - snap - keep
        found.append({snap: "snap", keep: "keep", rest: "neither"}[max(snap, keep, rest)])
    return found


def test_a_separable_problem_is_recovered() -> None:
    reranker = fit_reranker(separable(), provenance={"lines": 300})
    unseen = separable(90, seed=1)
    assert answers(reranker, unseen) == [e.case for e in unseen]
    assert reranker.line.weights.snap["edits"] < 0 < reranker.line.weights.keep["familiarity"]
    # What never varied weighs nothing.
    assert {reranker.line.weights.snap[name] for name in FEATURES if name not in ("edits", "familiarity")} == {0.0}
    assert reranker.provenance == {"lines": 300}
    assert reranker.line.threshold == 0.5


def test_probabilities_are_scikit_learn_s() -> None:
    """The folded-in standardisation gives what the model itself says of standardised features."""
    linear = pytest.importorskip("sklearn.linear_model", reason="the train extra is not installed")
    examples = separable()
    values = np.array([list(e.features.values()) for e in examples if e.features])
    labels = [e.case for e in examples]
    scale = np.where(values.std(0) == 0, 1, values.std(0))
    model = linear.LogisticRegression(C=1.0, max_iter=5000).fit((values - values.mean(0)) / scale, labels)
    expected = model.predict_proba((values - values.mean(0)) / scale)
    reranker = fit_reranker(examples)
    found = [reranker.line.probabilities(e.features) for e in examples if e.features]
    columns = [list(model.classes_).index(name) for name in ("snap", "keep")]
    np.testing.assert_allclose(found, expected[:, columns], atol=1e-3)


def test_a_stronger_penalty_makes_it_less_sure() -> None:
    weak, strong = fit_reranker(separable(), penalty=0.1), fit_reranker(separable(), penalty=100.0)
    assert abs(strong.line.weights.snap["edits"]) < abs(weak.line.weights.snap["edits"])


def test_the_same_examples_give_the_same_weights() -> None:
    assert fit_reranker(separable()) == fit_reranker(separable())


def test_exact_matches_are_counted_apart() -> None:
    """Laplace's rule of succession: (right + 1) / (seen + 2)."""
    exact = [example("snap", exact=True)] * 7 + [example("neither", exact=True)]
    with_exact = fit_reranker([*separable(), *exact, Example(None, False, True, False)])
    without = fit_reranker(separable())
    assert with_exact.exact == 8 / 10
    assert without.exact == 1 / 2
    assert with_exact.line.weights.snap == without.line.weights.snap


def test_the_risk_is_kept_to() -> None:
    """Of lines whose sentence the corpus lacks no more are harmed than asked, the next one counted as harmed."""
    generator = random.Random(1)

    def noisy(count: int) -> list[Example]:
        rows = []
        for number in range(count):
            case, known = generator.choice([("snap", True), ("keep", True), ("neither", False), ("keep", False)])
            edits = generator.gauss(1.0 if case == "snap" else 2.5, 1.0)
            features = {**dict.fromkeys(FEATURES, 0.0), "edits": edits}
            rows.append(Example(features, False, case == "keep", case == "snap", known, f"film {number % 4}"))
        return rows

    examples, fresh = noisy(4000), noisy(20_000)
    thresholds = []
    for risk in (0.3, 0.02, 0.005, 0.001):
        line = fit_reranker(examples, risk=risk).line
        assert line == fit_reranker(examples, risk=0.002).line.at_risk(risk)
        assert line.lines == sum(not e.known for e in examples)
        counted = sum(chance >= line.threshold for chance in line.harmful)
        assert (counted + 1) / (line.lines + 1) <= risk
        asked = [e for e in fresh if not e.known]
        harmed = sum(e.reading_right and line.probabilities(e.features or {})[0] >= line.threshold for e in asked)
        assert harmed / len(asked) <= risk + 3 * (risk / len(asked)) ** 0.5
        thresholds.append(line.threshold)
    assert thresholds == sorted(thresholds)
    assert thresholds[0] == 0.5
    with pytest.raises(ValueError, match=r"lines can vouch for 0\.000\d+ at the least"):
        fit_reranker(examples).at_risk(1e-6)


def test_few_examples_keep_to_what_they_can_vouch_for() -> None:
    line = fit_reranker(separable(), risk=1e-9).line
    assert line == line.at_risk(1 / 301)


@pytest.mark.parametrize("missing", ["snap", "keep", "neither"])
def test_a_missing_case_is_named(missing: str) -> None:
    rest = [e for e in separable(30) if e.case != missing]
    shown = ", ".join(sorted({"snap", "keep", "neither"} - {missing}))
    with pytest.raises(ValueError, match=f"the examples show {shown}; all of"):
        fit_reranker(rest)


def test_no_examples() -> None:
    for examples in ([], [Example(None, False, True, False)], [example("snap", exact=True)]):
        with pytest.raises(ValueError, match="show no case"):
            fit_reranker(examples)


@pytest.mark.parametrize("options", [{"risk": 1.5}, {"penalty": -1.0}, {"penalty": 0.0}])
def test_wrong_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        fit_reranker(separable(30), **options)  # type: ignore[arg-type]


def test_without_scikit_learn_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn.linear_model", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'caprag\[train\]'"):
        fit_reranker(separable(30))


@pytest.mark.parametrize(
    ("reading", "truth", "case", "exact"),
    [
        ("妳在閒玩笑嗎", "妳在開玩笑嗎？", "snap", False),
        ("妳在開玩笑嗎", "妳在開玩笑嗎", "snap", True),
        ("妳在開玩笑", "妳在開玩笑", "keep", False),
        ("妳在閒玩笑", "妳在開玩笑", "neither", False),
    ],
)
def test_examples_of_readings(reading: str, truth: str, case: str, exact: bool) -> None:
    found = described(reading, truth, [HIT])
    assert found.case == case
    assert found.features is not None
    assert found.exact is exact


def test_an_example_without_a_candidate() -> None:
    found = described("", "", [HIT])
    assert (found.features, found.case) == (None, "keep")
    assert described("好", "壞", []).case == "neither"


def test_what_was_fitted_decides_as_it_learnt() -> None:
    texts = ["不會持續太久的", "今天天氣很好啊", "社交方式發生了變化", "妳在開玩笑嗎你"]
    hits = [Hit(i, text, 0.5) for i, text in enumerate(texts)]
    examples = []
    for text in texts:
        for i in range(len(text)):
            examples.append(described(text[:i] + "日" + text[i + 1 :], text, hits))
            examples.append(described(text[:3], text[:3], hits, familiar=50))
            examples.append(described("日" * (i + 3), "沒有的句子", hits))
    reranker = fit_reranker(examples)
    read = [[Hypothesis("社交方武發生了變化")], [Hypothesis("今天天")], [Hypothesis("日日日日日")]]
    snapped, kept, neither = reranker.rerank_batch(read, [hits] * 3, lambda gram: 0)
    assert snapped.text == texts[2]
    assert (kept.hit, neither.hit) == (None, None)
