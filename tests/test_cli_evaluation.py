from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import pytrec_eval
import typer

import caprag
from caprag.cli import evaluation
from caprag.cli.options import complain
from caprag.errors import CapragError
from caprag.evaluation import systems

SENTENCES = [
    "妳在開玩笑嗎", "不會持續太久的", "昨天還很喜歡 今天就膩了", "因為再也沒有這種機會了嘛", "走嘞", "妳在开玩笑吗",
    "我們明天去看海", "這件事我不想再提", "他說他馬上就到", "外面好像在下雨", "你可以幫我一個忙嗎", "等一下再說",
]  # fmt: skip


def app() -> None:
    """Run the verb alone, as the command does."""
    group = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)
    group.callback()(lambda: None)
    group.command("retrieval")(evaluation.retrieval)
    try:
        group()
    except CapragError as error:
        complain(str(error))
        sys.exit(2)


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def figure(self, system: str, metric: str) -> float:
        """The value of the first such row."""
        row = next(line.split() for line in self.out.splitlines() if line.split()[:2] == [system, metric])
        return float(row[2])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["caprag", "retrieval", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            app()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Result(int(stop.value.code or 0), out, err)

    return call


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "劇本.txt"
    path.write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("索引") / "drama"
    built = caprag.Index.build(SENTENCES)
    built.remove([1])
    built.save(folder)
    return folder


def test_runs_are_measured_as_trec_eval_does_and_compared(run: Any, tmp_path: Path) -> None:
    qrels = {f"q{i}": {"a": 1, "b": 2} for i in range(9)}
    runs = {
        "good": {f"q{i}": {"a": 2.0, "b": 1.0, "c": 0.5} for i in range(9)},
        "poor": {f"q{i}": {"a": 1.0, "b": 1.0, "c": 1.0} for i in range(8)},
    }
    (tmp_path / "qrels").write_text("".join(f"{q} 0 {d} {g}\n" for q, j in qrels.items() for d, g in j.items()))
    for name, found in runs.items():
        (tmp_path / name).write_text("".join(f"{q} Q0 {d} 1 {s} x\n" for q, j in found.items() for d, s in j.items()))
    result = run(
        "--qrels", tmp_path / "qrels", "--run", tmp_path / "good", "--against", tmp_path / "poor",
        "--metrics", "ndcg@10,P@1", "--per-query", tmp_path / "each.jsonl",
    )  # fmt: skip
    assert result.code == 0
    for name, found in runs.items():
        theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "P.1"}).evaluate(found)
        for ours, other in (("ndcg@10", "ndcg_cut_10"), ("precision@1", "P_1")):
            mean = sum(values[other] for values in theirs.values()) / len(qrels)
            assert result.figure(str(tmp_path / name), ours) == pytest.approx(mean, abs=5e-5)
    # All nine queries differ, and one way: 2 of 2**9.
    assert f"{2 / 2**9:.4f}" in result.out
    assert "ties=float32,id-descending" in result.out
    assert "missing=1" in result.out
    rows = [json.loads(line) for line in (tmp_path / "each.jsonl").read_text().splitlines()]
    assert len(rows) == 18
    assert (rows[0]["query"], rows[0]["precision@1"], rows[9]["precision@1"]) == ("q0", 1.0, 0.0)


def test_an_index_is_asked_queries_with_their_truth(run: Any, index: Path, tmp_path: Path) -> None:
    queries = tmp_path / "queries.tsv"
    queries.write_text("走勒\t走嘞\n妳在閒玩笑嗎\t妳在開玩笑嗎\n外面好象在下雨\t外面好像在下雨\n", encoding="utf-8")
    result = run(
        "--index", index, "--queries", queries, "--systems", "caprag,edit,bm25,lexical,dense", "--metrics",
        "recall@1,success@1,mrr@10", "--save-run", tmp_path / "runs", "--out", tmp_path / "o.json",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.figure("caprag", "success@1") == result.figure("edit", "success@1") == 1.0
    # The second query's sentence is there in two spellings.
    assert result.figure("caprag", "recall@1") == pytest.approx(2.5 / 3, abs=5e-5)
    assert "11 sentences, 3 queries" in result.out
    # What it saved has the same values in trec_eval, under the ids of the index and the lines of the file.
    with (tmp_path / "runs/qrels.txt").open(encoding="utf-8") as stream:
        qrels = pytrec_eval.parse_qrel(stream)
    assert qrels == {"1": {"4": 1}, "2": {"0": 1, "5": 1}, "3": {"9": 1}}
    for system in ("caprag", "edit", "bm25", "lexical", "dense"):
        with (tmp_path / f"runs/{system}-11-0.run").open(encoding="utf-8") as stream:
            found = pytrec_eval.parse_run(stream)
        theirs = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(found)
        mean = sum(values["recip_rank"] for values in theirs.values()) / 3
        assert result.figure(system, "mrr@10") == pytest.approx(mean, abs=5e-5)
    # By id, and for these ids alone.
    queries.write_text("走勒\t4\n妳在閒玩笑嗎\t5\n", encoding="utf-8")
    assert (
        run("--index", index, "--queries", queries, "--ids-only", "--metrics", "recall@2").figure("edit", "recall@2")
        == 1
    )


def test_a_query_without_its_truth_is_named_and_the_rest_goes_on(run: Any, index: Path, tmp_path: Path) -> None:
    queries = tmp_path / "queries.tsv"
    queries.write_text("走勒\t走嘞\n沒有\n不會持績太久的\t不會持續太久的\n", encoding="utf-8")
    result = run("--index", index, "--queries", queries, "--systems", "edit")
    assert result.code == 1
    assert "queries.tsv, line 2: has 1 fields" in result.err
    assert "queries.tsv, line 3: the truth, '不會持續太久的', is not in" in result.err
    assert "11 sentences, 1 queries" in result.out


def test_a_beir_folder_is_measured(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(SENTENCES)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = [{"_id": "x", "text": "走勒"}, {"_id": "y", "text": "妳在閒玩笑嗎"}, {"_id": "z", "text": "一"}]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, asked)))
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nx\td4\t1\ny\td5\t2\ny\td0\t1\nz\td3\t0\n")
    result = run("--beir", folder, "--systems", "edit,bm25", "--metrics", "ndcg@10,map", "--save-run", tmp_path / "r",
                 "--per-query", tmp_path / "each.jsonl")  # fmt: skip
    assert result.code == 0, result.err
    with (tmp_path / "r/edit-12-0.run").open() as stream:
        found = pytrec_eval.parse_run(stream)
    qrels = {"x": {"d4": 1}, "y": {"d5": 2, "d0": 1}, "z": {"d3": 0}}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "map"}).evaluate(found)
    for ours, other in (("ndcg@10", "ndcg_cut_10"), ("map", "map")):
        mean = sum(values[other] for values in theirs.values()) / 3
        assert result.figure("edit", ours) == pytest.approx(mean, abs=5e-5)
    assert "hopeless=1" in result.out
    assert "relevant=ids" in result.out
    rows = [json.loads(line) for line in (tmp_path / "each.jsonl").read_text().splitlines()]
    assert [(row["system"], row["query"]) for row in rows] == [(s, q) for s in ("edit", "bm25") for q in "xyz"]


def sweep(corpus: Path, folder: Path, *more: object) -> list[object]:
    return [
        "--corpus", corpus, "--noise", "0.1,0.5", "--corpus-size", "6,11", "--count", 5, "--systems", "edit,bm25,tfidf",
        "--metrics", "recall@1,mrr@5", "--out", folder / "o.json", "--samples", 50, *more,
    ]  # fmt: skip


def without_times(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(row.pop("seconds") for row in rows)
    return rows


def test_a_sweep_over_noise_and_size_resumes_and_repeats_itself(run: Any, corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("caprag.noise")
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    first = run(*sweep(corpus, tmp_path / "a", "--plot", tmp_path / "a/p.png", "--per-query", tmp_path / "a/q.jsonl"))
    assert first.code == 0, first.err
    # Of twelve sentences two have the same letters.
    assert "11 sentences, 5 queries, noise 0.5" in first.out
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "o.json",
        "p-k.png",
        "p-noise.png",
        "p-size.png",
        "q.jsonl",
    ]
    rows = without_times(tmp_path / "a/o.json")
    assert [(row["size"], row["noise"], row["system"]) for row in rows] == [
        (size, noise, system) for size in (6, 11) for noise in (0.1, 0.5) for system in ("bm25", "edit", "tfidf")
    ]
    for row in rows:
        assert row["metrics"]["recall@1"]["value"] == sum(ranks == [1] for ranks in row["ranks"]) / 5
        assert ("against" in row) == (row["system"] != "edit")
    # Again, elsewhere: the same but for the times. Here: the same to the byte, for nothing is measured again.
    assert run(*sweep(corpus, tmp_path / "b")).code == 0
    assert without_times(tmp_path / "b/o.json") == rows
    before = (tmp_path / "b/o.json").read_bytes()
    again = run(*sweep(corpus, tmp_path / "b"))
    assert (tmp_path / "b/o.json").read_bytes() == before
    assert again.out.split("0.5\n", 1)[1] == run(*sweep(corpus, tmp_path / "b")).out.split("0.5\n", 1)[1]
    # In pieces, another metric in between: the same too.
    small = [x if x != "6,11" else "6" for x in sweep(corpus, tmp_path / "c")]
    assert run(*small, "--metrics", "ndcg@5").code == 0
    assert run(*sweep(corpus, tmp_path / "c")).code == 0
    assert without_times(tmp_path / "c/o.json") == rows


def test_a_killed_sweep_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("caprag.noise")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(f"第{i}句話說的是{i * 7919 % 1000}號" for i in range(1500)), encoding="utf-8")
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from test_cli_evaluation import app; app()"
    here = str(Path(__file__).resolve().parent)

    def command(out: Path) -> list[str]:
        return [
            sys.executable, "-c", program, here, "retrieval", "--corpus", str(corpus), "--noise", "0.1,0.2,0.3,0.4",
            "--count", "300", "--systems", "edit,bm25", "--metrics", "recall@1", "--out", str(out), "--samples", "20",
            "--quiet",
        ]  # fmt: skip

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    out = tmp_path / "killed.json"
    process = subprocess.Popen(command(out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)
    while process.poll() is None and not out.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = json.loads(out.read_text(encoding="utf-8"))["cells"]
    assert kept
    subprocess.run(command(out), check=True, capture_output=True, env=environment)
    done = {row["signature"]: row for row in json.loads(out.read_text(encoding="utf-8"))["cells"]}
    # What was finished before was not measured again: even its times are those.
    assert all(done[row["signature"]]["seconds"] == row["seconds"] for row in kept)
    whole = tmp_path / "whole.json"
    subprocess.run(command(whole), check=True, capture_output=True, env=environment)
    assert without_times(whole) == without_times(out)


def test_what_is_too_large_for_a_system_is_said(
    run: Any, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(systems.MOST, "bm25", (5, "much"))
    (tmp_path / "q.tsv").write_text("走勒\t走嘞\n", encoding="utf-8")
    result = run("--index", index, "--queries", tmp_path / "q.tsv", "--systems", "edit,bm25")
    assert result.code == 0
    assert "bm25 is left out at 11 sentences: it takes 5 at most, as its table wants much of memory" in result.err


EACH = "--beir or --index or --corpus"


@pytest.mark.parametrize(
    ("source", "option", "owners"),
    [
        ("--qrels", "--systems edit", EACH),
        ("--qrels", "--baseline edit", EACH),
        ("--qrels", "-k 3", EACH),
        ("--qrels", "--embedder x", EACH),
        ("--qrels", "--factory Flat", EACH),
        ("--qrels", "--workers 1", EACH),
        ("--qrels", "--save-run x", EACH),
        ("--qrels", "--out x.json", EACH),
        ("--qrels", "--plot x.png", EACH),
        ("--qrels", "--ids-only", "--beir or --index"),
        ("--qrels", "--split test", "--beir"),
        ("--qrels", "--count 1000", "--corpus"),
        ("--index", "--column text", "--corpus"),
        ("--index", "--encoding big5", "--corpus"),
        ("--index", "--count 1000", "--corpus"),
        ("--index", "--split dev", "--beir"),
        ("--index", "--against x", "--qrels"),
        ("--beir", "--noise 0.1", "--corpus"),
        ("--corpus", "--same-text", "--beir or --index"),
        ("--index", "--factory HNSW8", "systems that are built, such as caprag:MODEL; --index has its own factory"),
    ],
)
def test_no_option_is_passed_over(run: Any, corpus: Path, source: str, option: str, owners: str) -> None:
    needed = {"--qrels": ["--run", corpus], "--index": ["--queries", corpus]}.get(source, [])
    result = run(source, corpus, *needed, *option.split())
    name = "--same-text" if option == "--ids-only" else "--k" if option == "-k 3" else option.split()[0]
    assert (result.code, f"{name} goes with {owners}" in result.err) == (2, True)
    assert source in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing is given to evaluate; give one of --qrels"),
        (["--corpus", "{corpus}", "--index", "{index}"], "--index and --corpus is given"),
        (["--qrels", "{corpus}"], "--qrels is given without --run"),
        (["--index", "{index}"], "--index is given without --queries"),
        (["--corpus", "{corpus}", "--run", "{corpus}"], "--run goes with --qrels; --corpus is given"),
        (["--qrels", "{corpus}", "--run", "{corpus}"], "line 1: has 1 fields"),
        (["--beir", "{tmp}"], "no such file; a BEIR folder has"),
        (["--corpus", "{tmp}/none.txt"], "does not exist"),
        (["--corpus", "{empty}"], "no sentence has a letter"),
        (["--corpus", "{corpus}", "--noise", "a"], "--noise a: wanted are numbers"),
        (["--corpus", "{corpus}", "--noise", "1.5"], "strength is 1.5"),
        (["--corpus", "{corpus}", "--corpus-size", "12"], "the sizes are [12] and there are 11 sentences"),
        (["--corpus", "{corpus}", "--corpus-size", "2.5"], "whole numbers"),
        (["--corpus", "{corpus}", "--systems", "edit,google"], "system is 'google'; known are caprag"),
        (["--corpus", "{corpus}", "--systems", "dense:./none"], "no such folder"),
        (["--corpus", "{corpus}", "--systems", ","], "names nothing"),
        (["--corpus", "{corpus}", "--baseline", "bm25"], "--baseline bm25 is not among the systems"),
        (["--corpus", "{corpus}", "--metrics", "recall"], "wants a rank"),
        (["--corpus", "{corpus}", "--metrics", "recall@10", "-k", "5"], "looks at 10 ranks"),
        (["--corpus", "{corpus}", "--plot", "{tmp}/a.svg"], "draw to .png"),
        (["--corpus", "{corpus}", "--out", "{corpus}"], "holds no results of this command"),
        (["--index", "{tmp}", "--queries", "{tsv}"], "is no index"),
        (["--index", "{index}", "--queries", "{corpus}"], "line 1: has 1 fields"),
    ],
)
def test_wrong_use_says_what_to_do(
    run: Any, index: Path, corpus: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "q.tsv").write_text("走勒\t走嘞\n", encoding="utf-8")
    places = {
        "corpus": corpus,
        "index": index,
        "tmp": tmp_path,
        "empty": tmp_path / "empty.txt",
        "tsv": tmp_path / "q.tsv",
    }
    before = corpus.read_bytes()
    result = run(*(argument.format(**places) for argument in arguments))
    assert result.code == 2
    assert words in result.err
    assert corpus.read_bytes() == before
