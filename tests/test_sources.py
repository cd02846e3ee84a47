"""An index that follows its files, against a model that holds the files alone."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pytest
from hashing_embedder import HashingEmbedder
from hypothesis import given, settings
from hypothesis import strategies as st

from caprag.retrieval import Index
from caprag.retrieval.places import Places
from caprag.retrieval.sources import Changes, follow_sources
from caprag.types import Sentence

EMBEDDER = HashingEmbedder()
Files = dict[str, list[str]]


def read(files: Files, *names: str) -> list[Sentence]:
    """The sentences of files, each text once a file, as the command reads them."""
    found = []
    for name in names:
        first = {text: line for line, text in reversed(list(enumerate(files[name], 1)))}
        found += [Sentence(text, name, line) for text, line in sorted(first.items(), key=lambda pair: pair[1])]
    return found


def agrees(index: Index, files: Files) -> None:
    """The index holds what any of the files holds, each text once, and knows every place."""
    texts = [index[i].text for i in index]
    assert sorted(texts) == sorted({text for lines in files.values() for text in lines})
    expected = sorted((s.text, s.source, s.line) for s in read(files, *files))
    places = [*index.places(), *index.further_places()]
    assert sorted((index[i].text, source, line) for i, source, line in places) == expected


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), factory=st.sampled_from(["Flat", "IVF2,Flat"]))
def test_any_sequence_of_edits_agrees_with_the_files(
    seed: int, factory: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    generator = random.Random(seed)
    folder = tmp_path_factory.mktemp("index")

    def lines() -> list[str]:
        return [f"第{generator.randrange(12)}句" for _ in range(generator.randrange(7))]

    files: Files = {"甲": ["開頭", "結尾", *lines()], "乙": lines(), "丙": lines()}
    index = Index.build(read(files, *files), EMBEDDER, factory=factory)
    agrees(index, files)
    for step in range(6):
        changed = generator.sample(sorted(files), generator.randint(1, 3))
        before = {index[i].text: i for i in index}
        for name in changed:
            files[name] = lines()
        follow_sources(index, set(changed), read(files, *changed))
        agrees(index, files)
        # What is there still has its id.
        assert all(before[index[i].text] == i for i in index if index[i].text in before)
        if step % 2:
            index.save(folder)
            if generator.random() < 0.5:
                index = Index.load(folder, embedder=EMBEDDER)
        if step == 3:
            index.compact()
            agrees(index, files)


def test_a_text_survives_while_a_file_holds_it(tmp_path: Path) -> None:
    files: Files = {"a": ["好啊", "走吧"], "b": ["好啊"], "c": ["好啊", "再見"]}
    index = Index.build(read(files, "a", "b", "c"), EMBEDDER)
    index.save(tmp_path)
    index = Index.load(tmp_path, embedder=EMBEDDER)
    for gone, own in (("a", "b"), ("b", "c")):
        files[gone] = []
        follow_sources(index, [gone], [])
        number = index.find("好啊")
        assert number == 0
        assert index[0] == Sentence("好啊", own, 1)
    assert follow_sources(index, ["c"], []) == Changes(0, 0, 2, 0)
    assert (list(index), list(index.further_places())) == ([], [])


def test_what_came_from_no_file_stays() -> None:
    index = Index.build(["好啊", Sentence("走吧", "a", 1)], EMBEDDER)
    assert index.add([Sentence("好啊", "a", 2)]) == []
    assert list(index.further_places()) == [(0, "a", 2)]
    follow_sources(index, ["a"], [])
    assert [index[i] for i in index] == [Sentence("好啊")]


def test_a_text_that_two_files_get_anew_is_one_sentence() -> None:
    index = Index.build([Sentence("好啊", "a", 1), Sentence("走吧", "b", 1)], EMBEDDER)
    changes = follow_sources(index, ["a", "b"], [Sentence("再見", "a", 1), Sentence("再見", "b", 1)])
    assert changes == Changes(1, 0, 1, 0)
    assert ([index[i] for i in index], list(index.further_places())) == ([Sentence("再見", "a", 1)], [(0, "b", 1)])


def test_nothing_is_removed_where_a_file_was_read_in_part() -> None:
    index = Index.build([Sentence("好啊", "a", 1), Sentence("走吧", "a", 2), Sentence("好啊", "b", 1)], EMBEDDER)
    assert follow_sources(index, ["a", "b"], [Sentence("走吧", "a", 1)], remove=False) == Changes(0, 0, 0, 1)
    assert [index[i] for i in index] == [Sentence("好啊", "a", 1), Sentence("走吧", "a", 1)]
    assert list(index.further_places()) == [(0, "b", 1)]


def test_a_sentence_that_moves_keeps_its_aliases() -> None:
    index = Index.build([Sentence("好啊", "a", 1, ("fine",)), Sentence("好啊", "b", 3)], EMBEDDER)
    follow_sources(index, ["a"], [])
    assert index[0] == Sentence("好啊", "b", 3, ("fine",))


def test_another_text_stands_nowhere_else() -> None:
    index = Index.build([Sentence("好啊", "a", 1), Sentence("好啊", "b", 1)], EMBEDDER)
    index.upsert({0: Sentence("好啊", "c", 5)})
    assert list(index.further_places()) == [(0, "b", 1)]
    index.upsert({0: Sentence("走吧", "c", 5)})
    assert list(index.further_places()) == []


def test_places_are_written_only_when_they_have_changed(tmp_path: Path) -> None:
    index = Index.build([Sentence("好啊", "a", 1), Sentence("好啊", "b", 1)], EMBEDDER)
    assert not index.is_saved
    index.save(tmp_path)
    assert index.is_saved
    (stored,) = tmp_path.glob("places-*.arrow")
    index.add([Sentence("好啊", "b", 1), Sentence("好啊", "a", 1)])
    assert index.is_saved
    index.add(["走吧"])
    index.save(tmp_path)
    assert list(tmp_path.glob("places-*.arrow")) == [stored]
    index.add([Sentence("走吧", "b", 2)])
    assert not index.is_saved
    index.save(tmp_path)
    (other,) = tmp_path.glob("places-*.arrow")
    assert other != stored
    index.remove([0, 1])
    index.save(tmp_path)
    assert list(tmp_path.glob("places-*.arrow")) == []


def test_a_folder_without_places_opens(tmp_path: Path) -> None:
    """As those that were written before places were noted."""
    Index.build([Sentence("好啊", "a", 1)], EMBEDDER).save(tmp_path)
    contents = json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))
    assert contents.pop("places") == ""
    (tmp_path / "index.json").write_text(json.dumps(contents), encoding="utf-8")
    index = Index.load(tmp_path, embedder=EMBEDDER)
    assert list(index.further_places()) == []
    # Adding the files again notes what stands in them.
    index.add([Sentence("好啊", "b", 4)])
    index.save(tmp_path)
    assert list(Index.load(tmp_path, embedder=EMBEDDER).further_places()) == [(0, "b", 4)]


def test_places_agree_with_a_dictionary(tmp_path: Path) -> None:
    generator = random.Random(1)
    places, model = Places(), set[tuple[int, str, int]]()
    for step in range(60):
        new = [(generator.randrange(30), f"檔{generator.randrange(6)}", generator.randrange(99)) for _ in range(5)]
        places.add(new)
        model.update(new)
        if step % 3 == 1:
            gone = [generator.randrange(30)]
            places.remove(gone)
            model = {place for place in model if place[0] not in gone}
        if step % 7 == 2:
            names = {f"檔{generator.randrange(9)}"}
            places.forget(names)
            model = {place for place in model if place[1] not in names}
        if step % 5 == 4:
            places.save(tmp_path / f"{step}.arrow")
            places = Places(tmp_path / f"{step}.arrow")
        expected = sorted(model)
        assert sorted(places) == expected
        assert sorted(places.of([3, 4])) == [place for place in expected if place[0] in (3, 4)]
        assert (len(places), places.last_id) == (len(expected), max((i for i, _, _ in expected), default=-1))


def test_a_file_of_something_else_is_no_file_of_places(tmp_path: Path) -> None:
    with pa.OSFile(str(tmp_path / "x"), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("id", pa.int64())])) as writer:
        writer.write_table(pa.table({"id": [1]}))
    with pytest.raises(pa.ArrowInvalid, match="not"):
        Places(tmp_path / "x")
