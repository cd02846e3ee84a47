from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import caprag
from caprag.errors import CapragError
from caprag.evaluation import cer_report, count_errors, mean_edits
from caprag.evaluation.texts import FIGURES, METRICS

CANDIDATES = ["一隻貓坐在墊子上", "兩個人騎馬", "外面下雨了", "他走了", "這是一本舊書"]
REFERENCES = [
    ["一隻貓坐在墊子上面", "貓在墊子上"], ["兩個人騎著馬", "有人騎馬"], ["外面好像在下雨"], ["他走了"],
    ["這是一本新書", "桌上有本舊書", "舊書"],
]  # fmt: skip
PURE = ("bleu", "sacrebleu", "rouge-l", "cider", "cer", "mean-edits")


def test_the_figures_of_one_reference_are_those_of_errors() -> None:
    truths = [group[0] for group in REFERENCES]
    report = caprag.evaluate_text(CANDIDATES, [[t] for t in truths], ["cer", "mean-edits"], samples=200, seed=7)
    expected = cer_report(count_errors(CANDIDATES, truths), samples=200, seed=7)
    assert report["cer"].value == expected.value
    assert report["cer"].interval == expected.interval
    assert report["mean-edits"].value == mean_edits(CANDIDATES, truths)


def test_the_nearest_reference_counts() -> None:
    report = caprag.evaluate_text(["舊書"], [REFERENCES[4]], ["cer", "mean-edits"])
    assert (report["cer"].value, report["mean-edits"].value) == (0, 0)
    longer = caprag.evaluate_text(["ab"], [["abc", "a"]], ["cer"])  # one edit either way
    assert longer["cer"].value == pytest.approx(1 / 3)


def test_order_changes_nothing() -> None:
    order = [3, 0, 4, 1, 2]
    report = caprag.evaluate_text(CANDIDATES, REFERENCES, PURE)
    moved = caprag.evaluate_text([CANDIDATES[i] for i in order], [REFERENCES[i][::-1] for i in order], PURE)
    for metric, values in report.values.items():
        assert moved[metric].value == pytest.approx(report[metric].value)
        assert moved.values[metric] == pytest.approx([values[i] for i in order])
        low, high = report[metric].interval
        assert low <= report[metric].value <= high or metric.startswith(("bleu", "sacrebleu"))
    turned = caprag.evaluate_text(CANDIDATES, [group[::-1] for group in REFERENCES], PURE)
    assert turned == report  # the signature too


def test_the_same_text_is_the_best_and_another_worse() -> None:
    truths = [[group[0]] for group in REFERENCES]
    right = caprag.evaluate_text([group[0] for group in truths], truths, PURE)
    given = caprag.evaluate_text(CANDIDATES, truths, PURE)
    assert right["rouge-l"].value == pytest.approx(1)
    assert right["bleu-1"].value == pytest.approx(1)
    assert right["sacrebleu"].value == pytest.approx(100)
    assert right["cer"].value == right["mean-edits"].value == 0
    compared = {c.metric: c for c in right.compare(given, samples=500)}
    for metric, comparison in compared.items():
        test = comparison.test
        assert (test.difference > 0) == (metric not in ("cer", "mean-edits"))
        assert (test.better, test.worse) == (4, 0)
        assert test.p_randomization <= 0.5
    # All four that differ agree, and each of the 16 exchanges is looked at: none and all are as far.
    assert compared["rouge-l"].test.p_randomization == 2 / 16


def test_chinese_goes_by_characters_and_what_is_left_out_is_named() -> None:
    report = caprag.evaluate_text(CANDIDATES, REFERENCES, ["rouge-l", "spice"])
    assert " tokens=characters " in report.signature
    assert list(report.left_out) == ["spice"]
    assert "\nspice         left out: it parses English alone" in str(report)
    spaced = caprag.evaluate_text(
        [" ".join(c) for c in CANDIDATES], [[" ".join(r) for r in g] for g in REFERENCES], ["rouge-l"], tokenize="words"
    )
    assert spaced["rouge-l"].value == report["rouge-l"].value
    with pytest.raises(CapragError, match="nothing can be measured: cider: what is rare is told by several"):
        caprag.evaluate_text(["a"], [["a"]], ["cider"])


def test_a_missing_package_leaves_out_what_it_makes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no java
    report = caprag.evaluate_text(CANDIDATES, REFERENCES)
    assert report.left_out.keys() == {"meteor", "spice"}
    assert "install a Java runtime" in report.left_out["meteor"]
    measured = [f for key in METRICS for f in FIGURES[key] if key not in report.left_out]
    assert sorted(report.reports) == sorted(measured)


def test_a_model_adds_bertscore(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no java: it takes its time
    report = caprag.evaluate_text(CANDIDATES, REFERENCES, bertscore_model=tiny_folder, device="cpu")
    assert {"bertscore-p", "bertscore-r", "bertscore-f1", "bleu-4"} <= report.reports.keys()
    assert f"bertscore={tiny_folder.name},layer=1/1," in report.signature
    with pytest.raises(ValueError, match="bertscore is asked for without a model"):
        caprag.evaluate_text(CANDIDATES, REFERENCES, ["bertscore"])


def test_case_can_be_dropped_and_single_figures_asked_for() -> None:
    given, truths = ["A Cat sits", "Dogs"], [["a cat sits"], ["dogs"]]
    assert caprag.evaluate_text(given, truths, ["bleu-1"])["bleu-1"].value == pytest.approx(1 / 4)
    report = caprag.evaluate_text(given, truths, ["bleu-1"], lowercase=True)
    assert list(report.reports) == ["bleu-1"]
    assert report["bleu-1"].value == pytest.approx(1)


def test_reports_are_saved(tmp_path: Path) -> None:
    report = caprag.evaluate_text(CANDIDATES, REFERENCES, ["rouge-l", "cer", "spice"], ids=list("abcde"))
    report.save(tmp_path / "new" / "scores.json")
    saved = json.loads((tmp_path / "new" / "scores.json").read_text("utf-8"))
    assert [row["metric"] for row in saved["figures"]] == ["rouge-l", "cer"]
    assert saved["figures"][0]["value"] == report["rouge-l"].value
    assert saved["signature"] == report.signature
    assert saved["left_out"] == dict(report.left_out)
    report.save(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as stream:
        assert [float(row["high"]) for row in csv.DictReader(stream)] == [
            r.interval[1] for r in report.reports.values()
        ]
    report.save_items(tmp_path / "items.jsonl", texts=CANDIDATES)
    rows = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text("utf-8").splitlines()]
    assert [row["id"] for row in rows] == list("abcde")
    assert [row["text"] for row in rows] == CANDIDATES
    assert tuple(row["cer"] for row in rows) == report.values["cer"]
    with pytest.raises(CapragError, match=r"has the suffix '\.txt'"):
        report.save(tmp_path / "scores.txt")
    with pytest.raises(CapragError, match=r"has the suffix '\.json'"):
        report.save_items(tmp_path / "items.json")


def test_other_tasks_are_not_compared() -> None:
    report = caprag.evaluate_text(CANDIDATES, REFERENCES, ["bleu"])
    other = caprag.evaluate_text(CANDIDATES, [group[:1] for group in REFERENCES], ["bleu"])
    with pytest.raises(ValueError, match="the same references and settings are wanted"):
        report.compare(other)
    with pytest.raises(ValueError, match=r"the metrics are bleu-1, .* measure the same"):
        report.compare(caprag.evaluate_text(CANDIDATES, REFERENCES, ["bleu-1"]))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="references of item 0 are the text '貓'"):
        caprag.evaluate_text(["貓"], ["貓"])
    with pytest.raises(TypeError, match="candidates or references is a text"):
        caprag.evaluate_text("貓", [["貓"]])
    with pytest.raises(ValueError, match="there are 1 candidates, 2 references"):
        caprag.evaluate_text(["貓"], [["貓"], ["狗"]])
    with pytest.raises(ValueError, match="item 0 has no reference"):
        caprag.evaluate_text(["貓"], [[]])
    with pytest.raises(ValueError, match="there is no candidate"):
        caprag.evaluate_text([], [])
    with pytest.raises(ValueError, match="metric is 'bleu-5'; known are bleu"):
        caprag.evaluate_text(["貓"], [["貓"]], ["bleu-5"])
    with pytest.raises(ValueError, match="tokenize is 'jieba'; known are auto, characters"):
        caprag.evaluate_text(["貓"], [["貓"]], ["bleu"], tokenize="jieba")
    with pytest.raises(ValueError, match="no letter or digit; leave out cer"):
        caprag.evaluate_text(["貓"], [["。"]], ["cer"])
