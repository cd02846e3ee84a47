"""The story's order: sums over all ways through it, what is known of captions that come later, and streams."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caprag.reranking import FEATURES, Reranker
from caprag.reranking.chooser import BLOCK, Chooser, Chosen
from caprag.reranking.decision import Decision
from caprag.reranking.examples import Episode, Example
from caprag.reranking.features import Candidate
from caprag.reranking.fitting import fit_reranker
from caprag.reranking.reranker import InOrder
from caprag.reranking.story import MOST, Place, StoryModel, fit_story, neighbours_say
from caprag.reranking.weights import Linear
from caprag.types import Hit, Hypothesis

MODEL = StoryModel({1: 0.7, 2: 0.2, -1: 0.1}, absent=0.1, jump=0.05, leave=0.02, enter=0.03)
PLACES = [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)]
EVIDENCE = st.lists(st.dictionaries(st.sampled_from(PLACES), st.floats(-4, 4), max_size=3), min_size=1, max_size=4)

State = tuple[str, Place | None]


@given(EVIDENCE)
def test_some_captions_are_told_of_as_all_are(evidence: list[dict[Place, float]]) -> None:
    whole = neighbours_say(evidence, 9, MODEL)
    for first, last in itertools.combinations(range(len(evidence) + 1), 2):
        assert neighbours_say(evidence, 9, MODEL, first, last) == whole[first:last]


@pytest.mark.parametrize("zero", [0, -7, 2**40 - 4, 2**62 - 9])
def test_lines_may_be_any_numbers(zero: int) -> None:
    """Those of a sentence without a file are its id, which may be as great as users like."""
    near = [{("", 1): 3.0, ("a", 3): 1.0}, {("", 2): 3.0, ("b", 2): 2.0}, {("", 4): 300.0}, {("a", 1): -300.0}]
    far = [{(f, line + (0 if f else zero)): value for (f, line), value in found.items()} for found in near]
    for found, wanted in zip(neighbours_say(far, 9, MODEL), neighbours_say(near, 9, MODEL), strict=True):
        assert list(found.values()) == pytest.approx(list(wanted.values()))


def chance(model: StoryModel, before: State, after: State, sentences: int) -> float:
    """Return p(state | the one before), as the model's words say it."""
    (_, pointer), (kind, place) = before, after
    if pointer is None:
        return {"lost": 1 - model.enter, "at": model.enter / sentences, "absent": 0.0}[kind]
    if kind == "lost":
        return model.leave
    if kind == "absent":
        return model.absent if place == pointer else 0.0
    assert place is not None
    goes_on = 1 - model.absent - model.jump - model.leave
    step = model.steps.get(place[1] - pointer[1], 0.0) if place[0] == pointer[0] else 0.0
    return goes_on * step + model.jump / sentences


def by_all_ways(evidence: Sequence[Mapping[Place, float]], sentences: int) -> list[dict[Place, float]]:
    """Add up the probabilities of all ways through the story, less a caption's own evidence."""
    seen: list[Place] = []
    choices: list[list[State]] = []
    for found in evidence:
        choices.append([("lost", None), *(("at", place) for place in found), *(("absent", place) for place in seen)])
        seen = sorted({*seen, *found})
    totals: list[dict[State, float]] = [dict.fromkeys(states, 0.0) for states in choices]
    for way in itertools.product(*choices):
        first = way[0]
        p = 0.5 if first[0] == "lost" else 0.5 / sentences
        for before, after in itertools.pairwise(way):
            p *= chance(MODEL, before, after, sentences)
        told = [math.exp(evidence[t][s[1]]) if s[0] == "at" and s[1] is not None else 1.0 for t, s in enumerate(way)]
        for t, state in enumerate(way):
            totals[t][state] += p * math.prod(told[:t] + told[t + 1 :])
    said = []
    for found, total in zip(evidence, totals, strict=True):
        missing = sum(value for (kind, _), value in total.items() if kind != "at")
        said.append({place: math.log(total["at", place] / missing * sentences) for place in found})
    return said


@settings(max_examples=60, deadline=None)
@given(EVIDENCE, st.integers(5, 1000))
def test_neighbours_say_what_all_ways_together_say(evidence: list[dict[Place, float]], sentences: int) -> None:
    found = neighbours_say(evidence, sentences, MODEL)
    for mine, theirs in zip(found, by_all_ways(evidence, sentences), strict=True):
        assert mine == pytest.approx({place: max(min(x, MOST), -MOST) for place, x in theirs.items()}, abs=1e-9)


def test_one_caption_alone_hears_nothing() -> None:
    assert neighbours_say([{("a", 7): 3.0}], 1000, MODEL) == [{("a", 7): pytest.approx(0.0)}]
    assert neighbours_say([{}], 5, MODEL) == [{}]
    assert neighbours_say([], 5, MODEL) == []


def test_a_line_between_two_that_are_sure_is_expected() -> None:
    sure = 6.0
    evidence: list[dict[Place, float]] = [{("a", 1): sure}, {("a", 2): 0.0, ("b", 9): 0.0}, {("a", 3): sure}]
    told = neighbours_say(evidence, 10_000, MODEL)[1]
    assert told["a", 2] > 4 > 0 > told["b", 9]
    backwards = neighbours_say(evidence[::-1], 10_000, MODEL)[1]
    assert backwards["a", 2] < told["a", 2]


@pytest.mark.parametrize(
    "wrong", [{"jump": 0.0}, {"jump": 1.0}, {"absent": 0.95}, {"steps": {1: 0.5}}, {"steps": {99: 1.0}}]
)
def test_what_is_no_probability_is_refused(wrong: dict[str, object]) -> None:
    known = {"steps": {1: 1.0}, "absent": 0.1, "jump": 0.1, "leave": 0.1, "enter": 0.1}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StoryModel(**{**known, **wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sentences is 0"):
        neighbours_say([{}], 0, MODEL)


def test_steps_are_counted() -> None:
    """A long script counts for more than what is taken for granted of scripts that nobody has seen."""
    straight: list[Place | None] = [("a", line) for line in range(5000)]
    model = fit_story([straight])
    assert model.steps[1] > 0.99
    assert model.jump < 0.01
    skipping: list[Place | None] = [("a", 2 * line) for line in range(5000)]
    assert fit_story([skipping]).steps[2] > 0.98
    jumping: list[Place | None] = [("a", 100 * line % 977) for line in range(5000)]
    assert fit_story([jumping]).jump > 0.9
    gaps = [None if line % 10 == 5 else ("a", line) for line in range(5000)]
    assert fit_story([gaps]).absent == pytest.approx(0.1, abs=0.01)
    assert fit_story([[None] * 5000]).enter < 0.001 < fit_story([]).enter


ZERO = dict.fromkeys(FEATURES, 0.0)
LINE = Decision(Linear({**ZERO, "edits": -1.0}, ZERO, 1.0, 0.0))
AMONG = Decision(Linear({"snap": 1.0, "keep": 0.0, "story": 1.0}, {"snap": 0.0, "keep": 1.0, "story": 0.0}, 0.0, 0.0))
LISTENING = Reranker(LINE, 0.95, InOrder(fit_story([[("s", n) for n in range(200)]]), AMONG))


def candidate(number: int, edits: float) -> Candidate:
    return Candidate(Hit(number, f"句{number}", 0.5), edits == 0, {**ZERO, "edits": edits})


def script(count: int, seed: int) -> list[tuple[list[Candidate], dict[int, list[Place]]]]:
    """A story whose lines are read with more or fewer errors, each with a rival that stands elsewhere."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        errors = float(rng.choice([0, 0, 1, 2, 3]))
        rival = 10_000 + rng.randrange(10_000)
        rows.append(([candidate(rival, max(1.0, errors - 1)), candidate(number, errors)],
                     {number: [("s", number)], rival: [("t", rival)]}))  # fmt: skip
    return rows


@pytest.mark.parametrize("count", [1, 11, 12, BLOCK, 2 * BLOCK - 1, 2 * BLOCK, 5 * BLOCK + 7])
def test_a_stream_is_decided_as_the_whole(count: int) -> None:
    """Nothing waits longer than it must, and what is decided does not hang on how much comes after its neighbours."""
    rows = script(count, 1)
    whole, late = [], 0
    chooser = Chooser(LISTENING, 20_000)
    for number, row in enumerate(rows):
        whole += chooser.push(str(number), *row)
        late = max(late, number + 1 - len(whole))
    assert late < 2 * BLOCK
    whole += chooser.finish()
    assert len(whole) == count
    assert chooser.listens is (count >= 12)
    further = Chooser(LISTENING, 20_000)
    longer = [one for n, row in enumerate([*rows, *script(4 * BLOCK, 2)]) for one in further.push(str(n), *row)]
    settled = max(0, (count // BLOCK - 1) * BLOCK)
    assert longer[:settled] == whole[:settled]
    if count >= 2 * BLOCK:
        right = [one is not None and one.candidate.hit.id == number for number, one in enumerate(whole)]
        assert sum(right) == count
        alone = [row[0].hit.id == number for number, (row, _) in enumerate(rows)]
        assert sum(alone) == 0


def test_what_begins_later_is_decided_as_in_the_whole() -> None:
    """From two blocks before on, all that a caption hears is there."""
    rows = script(6 * BLOCK, 3)

    def chosen(some: Sequence[tuple[list[Candidate], dict[int, list[Place]]]]) -> list[Chosen | None]:
        chooser = Chooser(LISTENING, 20_000)
        return [*(one for n, row in enumerate(some) for one in chooser.push(str(n), *row)), *chooser.finish()]

    assert chosen(rows[BLOCK:])[2 * BLOCK :] == chosen(rows)[3 * BLOCK :]


def test_a_caption_in_many_frames_is_one_caption() -> None:
    """Frames that read alike count once, and what any of them found counts for all."""
    rows = script(3 * BLOCK, 4)
    once, often = Chooser(LISTENING, 20_000), Chooser(LISTENING, 20_000)
    single = [*(one for n, row in enumerate(rows) for one in once.push(f"句{n}", *row)), *once.finish()]
    frames = []
    for number, (found, places) in enumerate(rows):
        # The right sentence is found for the last of its frames alone.
        for part in ([found[0]], found):
            frames += often.push(f"句{number}", part, places)
    frames += often.finish()
    assert len(frames) == 2 * len(rows)
    middle = range(BLOCK, 2 * BLOCK - 8)
    for number in middle:
        one, last = single[number], frames[2 * number + 1]
        assert one is not None
        assert last is not None
        assert last.candidate.hit.id == one.candidate.hit.id == number


def test_a_sentence_that_stands_nowhere_is_decided_by_itself() -> None:
    chooser = Chooser(LISTENING, 20_000)
    rows = script(2 * BLOCK, 5)
    pushed = [one for n, (found, _) in enumerate(rows) for one in chooser.push(str(n), found, {})]
    chosen = [*pushed, *chooser.finish()]
    assert [one and one.story for one in chosen] == [None] * len(rows)
    read = (Hypothesis("句"),)
    by_line = [LISTENING.decide(read, found) for found, _ in rows]
    in_order = list(LISTENING.decide_in_order(((read, found, {}) for found, _ in rows), 20_000))
    assert [caption.text for caption in in_order] == [caption.text for caption in by_line]


@pytest.mark.parametrize(
    ("own", "stray", "lost", "snapped"),
    [(2.0, 0.0, 2.0, True), (3.0, 0.0, 0.0, False), (3.0, 1.0, 0.0, True), (0.0, 0.0, 3.0, False)],
)
def test_no_neighbour_is_heard_where_one_says_more(own: float, stray: float, lost: float, snapped: bool) -> None:
    """As with two sentences in one caption, or a half: the place is right, and what is said is not the sentence."""
    rows = [([candidate(n, 4.0 if n == 20 else 0.0)], {n: [("s", n)]}) for n in range(40)]
    longer = rows[20][0][0]
    rows[20][0][0] = replace(longer, features={**longer.features, "invented": own, "stray": stray, "lost": lost})
    described = (((Hypothesis(f"讀{n}"),), found, places) for n, (found, places) in enumerate(rows))
    answer = list(LISTENING.decide_in_order(described, 20_000))[20]
    assert answer.text == ("句20" if snapped else "讀20")
    assert ("story" in answer.evidence) == snapped


def test_a_text_that_stands_everywhere_costs_little() -> None:
    everywhere = [("f", line) for line in range(20_000)]
    chooser = Chooser(LISTENING, 20_000)
    for number in range(3 * BLOCK):
        chooser.push(str(number), [candidate(1, 0.0)], {1: everywhere})
    assert len(chooser.finish()) < 3 * BLOCK


def test_without_order_there_is_no_chooser() -> None:
    with pytest.raises(ValueError, match="knows no order; fit it on episodes"):
        Chooser(Reranker(LINE, 0.9), 10)


def test_fitting_learns_to_listen() -> None:
    """Where the neighbours tell right from wrong and the reading itself does not, their word gets weight."""
    pytest.importorskip("sklearn", reason="the train extra is not installed")
    rng = random.Random(0)
    episodes, examples = [], []
    for inside in (True, False):
        readings, truths, described, places = [], [], [], []
        for number in range(300):
            exact = inside and rng.random() < 0.5
            edits = 0.0 if exact else rng.uniform(0.5, 3.0)
            right = inside or rng.random() < 0.05
            truth = f"句{number}" if right else f"別{number}"
            readings.append(Hypothesis(truth if exact or rng.random() < 0.7 else "誤"))
            truths.append(truth)
            described.append([candidate(number, edits)])
            places.append({number: [("s", number if inside else rng.randrange(10_000))]})
        episode = Episode(readings, truths, described, places, 10_000, known=inside)
        episodes.append(episode)
        examples += [Example.of(r, row[0], t) for r, row, t in zip(readings, described, truths, strict=True)]
    assert episodes[0].way() == [("s", number) for number in range(300)]
    assert episodes[1].way() == [None] * 300
    reranker = fit_reranker(examples, episodes=episodes)
    assert reranker.order is not None
    assert reranker.order.decision.weights.snap["story"] > 0.03
    answered = {}
    for name, episode in zip(("inside", "outside"), episodes, strict=True):
        rows = zip(((reading,) for reading in episode.readings), episode.described, episode.places, strict=True)
        captions = list(reranker.decide_in_order(rows, 10_000))
        assert [caption.hypotheses[0] for caption in captions] == list(episode.readings)
        answered[name] = sum(caption.hit is not None for caption in captions)
    assert answered["inside"] > 290
    assert answered["outside"] < 40
