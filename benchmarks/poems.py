"""Find the verse that plain words stand for: python benchmarks/poems.py [--small] [--work FOLDER].

CCPM's vernacular lines are the queries, its verses the answers; the pairs of its validation set are the test, and what
stands in both or nearly so is taken out of the training. Two corpora: the verses of the test with their negatives
(seven mined by the embedder before, three given by CCPM), and all verses of CCPM with all clauses of the collected
poems. Systems: the shipped embedder before and after fine-tuning, the index (dense and lexical ranks fused), the same
put in order by a cross-encoder that was trained here, BM25 over characters and pairs, and chance. A run that was
stopped goes on where it was, in its work folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from material import DATA, ROOT, require_data, write

import caprag
from caprag.errors import CorpusError
from caprag.evaluation.baselines import BM25Retriever, OverTexts, Ranking, Retriever
from caprag.evaluation.report import RetrievalReport
from caprag.evaluation.retrieval import evaluate_retrieval
from caprag.evaluation.systems import DenseRetriever
from caprag.poems import VersePair, make_verses, read_poems
from caprag.reranking.cross_encoder import CrossEncoderScorer, load_cross_encoder
from caprag.text import match_forms
from caprag.training.cross_encoder import CrossEncoderOptions, train_cross_encoder
from caprag.training.embedder import TrainingOptions, train_embedder
from caprag.training.negatives import MiningOptions, mine_negatives
from caprag.training.pairs import Pair
from caprag.training.saving import save_embedder
from caprag.training.split import near_clusters
from caprag.types import Embedder

METRICS = (
    *(f"ndcg@{k}" for k in (1, 5, 10)), *(f"recall@{k}" for k in (1, 5, 10)), "mrr", "map", "precision@1",
)  # fmt: skip
SEED = 0
RERANKED = 20
MINING = MiningOptions(ranks=(2, 50), negatives=7, margin=None, seed=SEED)
EMBEDDER = TrainingOptions(
    epochs=3, batch_size=64, group_size=6, learning_rate=1e-3, temperature=0.05, query_max_length=64,
    passage_max_length=32, save_steps=200, seed=SEED,
)  # fmt: skip
CROSS_ENCODER = CrossEncoderOptions(
    epochs=2, batch_size=32, group_size=4, learning_rate=5e-4, query_max_length=44, passage_max_length=20,
    save_steps=300, seed=SEED,
)  # fmt: skip


Score = Callable[[Sequence[tuple[str, str]]], npt.NDArray[np.float32]]


class Remembering:
    """An embedder that embeds no text twice, nor in another run: its vectors lie in a file."""

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        self.name, self.dimension, self.fingerprint = embedder.name, embedder.dimension, embedder.fingerprint
        self._embedder = embedder
        self._folder = folder
        self._rows: dict[str, npt.NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str], *, progress: bool = False) -> npt.NDArray[np.float32]:
        """Embed texts."""
        fresh = list(dict.fromkeys(text for text in texts if text not in self._rows))
        if fresh:
            digest = hashlib.sha256("\0".join([self.fingerprint, *fresh]).encode("utf-8", "replace")).hexdigest()
            path = self._folder / f"{digest[:24]}.npy"
            if not path.exists():
                np.save(path, self._embedder.embed(fresh, progress=progress))
            self._rows.update(zip(fresh, np.load(path), strict=True))
        return np.stack([self._rows[text] for text in texts]) if texts else np.zeros((0, self.dimension), np.float32)


class Fused(OverTexts):
    """The index searched by meaning: reciprocal ranks of dense and lexical search, added."""

    def __init__(self, texts: Sequence[str], embedder: Embedder, description: str) -> None:
        super().__init__(texts)
        self._index = caprag.Index.build(texts, embedder)
        self._places = {text: place for place, text in reversed(list(enumerate(texts)))}
        self.description = description

    def search_batch(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """Search by meaning."""
        found = self._index.search_batch(queries, k, by="meaning")
        # Scores that say the order and no more.
        return [[(self._places[hit.text], 1 / rank) for rank, hit in enumerate(hits, 1)] for hits in found]


class Reranked(OverTexts):
    """The first ranks of another retriever, put in order by a cross-encoder; the rest as they were."""

    def __init__(self, texts: Sequence[str], inner: Retriever, scorer: CrossEncoderScorer) -> None:
        super().__init__(texts)
        self._inner = inner
        self._scorer = scorer
        self.description = f"{inner.description}+cross-encoder({scorer.fingerprint[:12]},top={RERANKED})"

    def search_batch(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """Search, then score the first ranks."""
        found = self._inner.search_batch(queries, max(k, RERANKED))
        pairs = [(q, self.text(i)) for q, row in zip(queries, found, strict=True) for i, _ in row[:RERANKED]]
        scores = iter(self._scorer.score(pairs, unit="logit").tolist())
        results: list[Ranking] = []
        for row in found:
            head = sorted(((i, next(scores)) for i, _ in row[:RERANKED]), key=lambda hit: -hit[1])
            floor = min((score for _, score in head), default=0.0)
            tail = [(i, floor - rank) for rank, (i, _) in enumerate(row[RERANKED:], 1)]
            results.append([*head, *tail][:k])
        return results


class Chance(OverTexts):
    """Sentences drawn blindly: the floor."""

    description = f"chance(seed={SEED})"

    def search_batch(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """Draw."""
        size = len(self._texts)
        rows = []
        for query in queries:
            seed = int.from_bytes(hashlib.sha256(f"{SEED} {query}".encode()).digest()[:8], "big")
            drawn = np.random.default_rng(seed).choice(size, min(k, size), replace=False)
            rows.append([(int(i), -float(rank)) for rank, i in enumerate(drawn)])
        return rows


def read_pairs(name: str) -> tuple[list[VersePair], int]:
    """Read one of CCPM's files; also return how many rows are not usable."""
    errors: list[CorpusError] = []
    path = DATA / "poems" / f"ccpm-{name}.jsonl"
    pairs = [pair for pair in read_poems(path, on_error=errors.append) if isinstance(pair, VersePair)]
    return pairs, len(errors)


def split(train: Sequence[VersePair], test: Sequence[VersePair]) -> list[VersePair]:
    """Return the pairs to train on: none whose verse or plain words are a test pair's, or nearly so."""
    kept = np.ones(len(train), bool)
    for texts in ([p.verse for p in (*train, *test)], [p.translation for p in (*train, *test)]):
        clusters = near_clusters(texts)
        kept &= ~np.isin(clusters[: len(train)], clusters[len(train) :])
    return [pair for pair, keep in zip(train, kept, strict=True) if keep]


def distinct(texts: Sequence[str]) -> list[str]:
    """Return the first text of each matching form."""
    first: dict[str, str] = {}
    for form, text in zip(match_forms(texts), texts, strict=True):
        first.setdefault(form, text)
    return [text for form, text in first.items() if form]


def ccpm_verses(names: Sequence[str]) -> list[str]:
    """Return all verses in CCPM, right or wrong, as written."""
    found = []
    for name in names:
        with (DATA / "poems" / f"ccpm-{name}.jsonl").open(encoding="utf-8") as stream:
            found += [caprag.normalize(choice) for line in stream for choice in json.loads(line)["choices"]]
    return distinct(found)


def with_given_negatives(mined: Path, pairs: Sequence[VersePair], out: Path) -> Path:
    """Put CCPM's own negatives before the mined ones."""
    given = {(pair.translation, pair.verse): pair.negatives for pair in pairs}
    with mined.open(encoding="utf-8") as source, out.open("w", encoding="utf-8") as target:
        for line in source:
            row = json.loads(line)
            negatives = dict.fromkeys([*given[row["query"], row["pos"][0]], *row["neg"]])
            target.write(json.dumps({**row, "neg": list(negatives)}, ensure_ascii=False) + "\n")
    return out


def choice_accuracy(score: Score, pairs: Sequence[VersePair]) -> float:
    """Return the share of test rows whose right verse has the highest score among CCPM's choices."""
    rows = [(pair.translation, choice) for pair in pairs for choice in (pair.verse, *pair.negatives)]
    scores, place, right = score(rows), 0, 0
    for pair in pairs:
        own = scores[place : place + 1 + len(pair.negatives)]
        right += int(np.argmax(own)) == 0
        place += len(own)
    return right / len(pairs)


def cosines(embedder: Embedder) -> Score:
    """Return what scores pairs by the cosine of an embedder."""
    return lambda rows: np.einsum(
        "ij,ij->i", embedder.embed([a for a, _ in rows]), embedder.embed([b for _, b in rows])
    )


@dataclass(frozen=True)
class Material:
    """What is trained on, what is asked, and what is searched."""

    train: list[VersePair]
    test: list[VersePair]
    verses: list[str]
    clauses: list[str]
    counts: dict[str, int]


@dataclass(frozen=True)
class Models:
    """The embedder before and after, and the cross-encoder; with the negatives of the test."""

    before: Embedder
    after: Embedder
    scorer: CrossEncoderScorer
    negatives: list[str]


class Clock:
    """Tells and keeps how long each step took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a step."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        print(f"{name}: {self.seconds[name]:.0f} s", flush=True)


def gather(small: bool) -> Material:
    """Read the pairs, take out of the training what is in the test, and list all verses."""
    train, bad_train = read_pairs("train")
    test, bad_test = read_pairs("valid")
    verses = ccpm_verses(["train", "valid", "test_public"])
    poems = read_poems(DATA / "poems" / "poems.jsonl", on_error=lambda _: None)
    clauses = [sentence.text for sentence in make_verses(poems, unit="clause", by="verse")[0]]
    if small:
        # From all over the files.
        train, test, verses, clauses = train[::10], test[::10], verses[::10], clauses[::40]
    kept = split(train, test)
    counts = {
        "train": len(kept), "left out as in the test or near it": len(train) - len(kept), "test": len(test),
        "not usable": bad_train + bad_test,
    }  # fmt: skip
    return Material(kept, test, verses, clauses, counts)


def train(material: Material, work: Path, clock: Clock) -> Models:
    """Mine negatives, fine-tune the embedder, train the cross-encoder; each is taken up where it was stopped."""
    shipped = caprag.load_embedder()
    with clock("mine for the test"):
        asked = [Pair(pair.translation, (pair.verse,)) for pair in material.test]
        of_test = replace(MINING, seed=SEED + 1)
        mine_negatives(asked, material.verses, work / "test.jsonl", of_test, embedder=shipped)
    with clock("mine for the training"):
        hidden = set(match_forms([pair.verse for pair in material.test]))
        forms = match_forms(material.verses)
        shown = [verse for verse, form in zip(material.verses, forms, strict=True) if form not in hidden]
        pairs = [Pair(pair.translation, (pair.verse,)) for pair in material.train]
        mine_negatives(pairs, shown, work / "mined.jsonl", MINING, embedder=shipped)
        rows = with_given_negatives(work / "mined.jsonl", material.train, work / "train.jsonl")
    with clock("train the embedder"):
        base = Path(caprag.__file__).parent / "retrieval" / "embedder"
        if not (work / "embedder" / "modules.json").exists():
            # The shipped weights are in half precision, which training would keep.
            save_embedder(base, work / "base")
            train_embedder([rows], work / "base", work / "embedder", EMBEDDER)
        after = caprag.load_embedder(work / "embedder")
    with clock("mine again"):
        # What the embedder before takes for near is near in length and shape: to tell that from a right answer is no
        # task, and a cross-encoder that learns it is at chance among verses of one length.
        again = replace(MINING, seed=SEED + 2)
        mine_negatives(pairs, shown, work / "mined-again.jsonl", again, embedder=after)
        rows = with_given_negatives(work / "mined-again.jsonl", material.train, work / "train-again.jsonl")
    with clock("train the cross-encoder"):
        if not (work / "cross-encoder" / "config.json").exists():
            train_cross_encoder([rows], work / "embedder", work / "cross-encoder", CROSS_ENCODER)
        scorer = load_cross_encoder(work / "cross-encoder", batch_size=128)
    lines = (work / "test.jsonl").read_text(encoding="utf-8").splitlines()
    negatives = [text for line in lines for text in json.loads(line)["neg"]]
    negatives += [text for pair in material.test for text in pair.negatives]
    return Models(Remembering(shipped, work / "vectors"), Remembering(after, work / "vectors"), scorer, negatives)


def measure(texts: Sequence[str], material: Material, models: Models, clock: Clock) -> dict[str, RetrievalReport]:
    """Measure all systems on one corpus."""
    place = {form: i for i, form in enumerate(match_forms(texts))}
    relevant = [place[form] for form in match_forms([pair.verse for pair in material.test])]
    queries = [pair.translation for pair in material.test]
    with clock(f"build over {len(texts)} verses"):
        fused = Fused(texts, models.after, f"caprag(meaning,embedder={models.after.fingerprint[:12]})")
        systems: dict[str, Retriever] = {
            "chance": Chance(texts),
            "BM25": BM25Retriever(texts),
            "embedder before": DenseRetriever(texts, models.before),
            "embedder after": DenseRetriever(texts, models.after),
            "index after": fused,
            "index after, cross-encoder": Reranked(texts, fused, models.scorer),
        }
    reports = {}
    for name, system in systems.items():
        with clock(f"{name} over {len(texts)} verses"):
            reports[name] = evaluate_retrieval(system, queries, relevant, METRICS, k=100, name=name, seed=SEED)
    return reports


def compare(reports: Mapping[str, RetrievalReport]) -> list[dict[str, object]]:
    """Put what was trained beside BM25 and the embedder as it was."""
    return [
        {
            "system": name, "other": other, "metric": compared.metric, "ratio": compared.ratio,
            "difference": compared.test.difference, "interval": compared.test.interval,
            "p": compared.test.p_randomization,
        }
        for name in ("embedder after", "index after", "index after, cross-encoder")
        for other in ("BM25", "embedder before")
        for compared in reports[name].compare(reports[other], samples=2000)
    ]  # fmt: skip


def main() -> None:
    """Train, then measure all systems on both corpora."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a tenth of it, to see that it works; no result is kept")
    parser.add_argument("--work", type=Path, help="folder for what is made on the way")
    options = parser.parse_args()
    require_data()
    work = options.work or ROOT / "build" / ("poems-small" if options.small else "poems")
    (work / "vectors").mkdir(parents=True, exist_ok=True)
    clock = Clock()
    with clock("read and split"):
        material = gather(options.small)
    models = train(material, work, clock)
    positives = [pair.verse for pair in material.test]
    corpora = {
        "test positives and negatives": distinct([*positives, *models.negatives]),
        "all verses": distinct([*positives, *material.verses, *material.clauses]),
    }
    rows: list[dict[str, object]] = []
    comparisons: list[dict[str, object]] = []
    for corpus, texts in corpora.items():
        reports = measure(texts, material, models, clock)
        about: dict[str, object] = {"corpus": corpus, "verses": len(texts)}
        for name, found in reports.items():
            rows += [{**about, "system": name, **asdict(report)} for report in found.reports.values()]
            figures = "  ".join(f"{m} {found[m].value:.3f}" for m in ("ndcg@1", "ndcg@10", "recall@5", "mrr"))
            print(f"{corpus:36} {name:28} {figures}", flush=True)
        comparisons += [{**about, **row} for row in compare(reports)]
    accuracy = {
        "embedder before": choice_accuracy(cosines(models.before), material.test),
        "embedder after": choice_accuracy(cosines(models.after), material.test),
        "cross-encoder": choice_accuracy(lambda pairs: models.scorer.score(pairs, unit="logit"), material.test),
    }
    print("CCPM, right among its choices:", {name: round(value, 4) for name, value in accuracy.items()})
    result: dict[str, object] = {
        "pairs": material.counts, "rows": rows, "comparisons": comparisons, "choice_accuracy": accuracy,
        "reranked": RERANKED, "mining": asdict(MINING), "embedder": asdict(EMBEDDER),
        "cross_encoder": asdict(CROSS_ENCODER), "seconds": clock.seconds,
    }  # fmt: skip
    if options.small:
        print(json.dumps({"pairs": material.counts, "seconds": clock.seconds}, ensure_ascii=False))
    else:
        print(write("poems", result))


if __name__ == "__main__":
    main()
