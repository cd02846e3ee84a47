"""Poems to the sentences of an index: verses with their poet, title and place, and translations as their aliases.

A sentence's `source` names the poem as Chinese does (李白《靜夜思》) and its `line` the line of the poem. Knows neither
embedders nor indexes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

from caprag.corpus.splitting import DROPPED_AT_ENDS
from caprag.errors import CorpusError
from caprag.poems.alignment import align_translation, split_clauses, split_sentences
from caprag.poems.reading import Poem, VersePair
from caprag.text import match_form, normalize
from caprag.types import Sentence

Unit = Literal["clause", "couplet", "line"]
"""What counts as one verse: up to a comma, up to a sentence end, or the whole line of the poem."""
By = Literal["verse", "translation"]
"""What answers: the verse's own text, or its translations too."""

_NOTE = re.compile(r"[(（][^()（）]*[)）]")
_CITATION = re.compile(r"([^《》]*)《(.*)》", re.DOTALL)


@dataclass(slots=True)
class PoemReport:
    """What was read and what became of it.

    Attributes
    ----------
    poems, pairs
        Rows of either kind that were read.
    verses
        Sentences that came out.
    translated
        Of these, how many have a translation.
    repeated
        Verses that were there already, in whatever characters; their translations are kept.
    traced
        Verses of pairs that were found in a poem, which lends them its name.
    other_authors
        Poems by others than the chosen ones, and pairs that stand in none of the chosen poems.
    unaligned
        Verses of a poem with a translation for which nothing in it was found.
    """

    poems: int = 0
    pairs: int = 0
    verses: int = 0
    translated: int = 0
    repeated: int = 0
    traced: int = 0
    other_authors: int = 0
    unaligned: int = 0

    def __str__(self) -> str:
        return (
            f"{self.poems} poems and {self.pairs} translated verses: {self.verses} verses, {self.translated} with a "
            f"translation; {self.repeated} repeated, {self.traced} traced to their poem, {self.unaligned} not aligned, "
            f"{self.other_authors} of other authors"
        )


def cite(title: str, author: str) -> str:
    """Name a poem; empty where neither is known.

    Examples
    --------
    >>> cite("靜夜思", "李白"), cite("關雎", "")
    ('李白《靜夜思》', '《關雎》')
    """
    return f"{author}《{title}》" if title or author else ""


def parse_citation(source: str) -> tuple[str, str]:
    """Return title and author of a name that `cite` made; both empty for anything else.

    Examples
    --------
    >>> parse_citation("李白《靜夜思》"), parse_citation("poems.jsonl")
    (('靜夜思', '李白'), ('', ''))
    """
    found = _CITATION.fullmatch(source)
    return (found[2], found[1]) if found else ("", "")


def split_verses(line: str, unit: Unit = "couplet") -> list[str]:
    """Cut a line of a poem into verses.

    Parameters
    ----------
    line
        As the poem has it. What stands in round brackets (stage directions, notes on variants) is left out.
    unit
        What counts as one verse. A clause loses the marks at its ends.

    Returns
    -------
    list of str
        In order, in their written form; none without a letter.

    Raises
    ------
    ValueError
        For an unknown unit.

    Examples
    --------
    >>> split_verses("(正末唱)關關雎鳩，在河之洲。窈窕淑女，君子好逑。")
    ['關關雎鳩,在河之洲。', '窈窕淑女,君子好逑。']
    """
    if unit not in get_args(Unit):
        raise ValueError(f"unit is {unit!r}; known are {', '.join(get_args(Unit))}")
    text = normalize(_NOTE.sub("", line))
    if unit == "line":
        return [text] if match_form(text) else []
    if unit == "couplet":
        return split_sentences(text)
    return [clause.strip(DROPPED_AT_ENDS) for clause in split_clauses(text)]


@dataclass(slots=True)
class _Row:
    text: str
    source: str
    line: int
    aliases: dict[str, None] = field(default_factory=dict)


def make_verses(
    entries: Iterable[Poem | VersePair],
    *,
    unit: Unit = "couplet",
    by: By = "translation",
    authors: Collection[str] | None = None,
) -> tuple[list[Sentence], PoemReport]:
    """Make the sentences of an index out of poems and translated verses.

    Parameters
    ----------
    entries
        Read by `read_poems`.
    unit
        What of a poem counts as one verse. The verses of pairs stay as they are.
    by
        ``"translation"`` gives each verse its translations as aliases; ``"verse"`` leaves them out.
    authors
        Keep these authors' poems alone, in whatever characters their names are written. A pair, which has no author,
        is kept where its verse stands in one of these poems.

    Returns
    -------
    list of Sentence
        Verses of poems in document order, then those of pairs that no poem has as such a verse. One for each matching
        form (`caprag.text.match_form`): the first.
    PoemReport
        What became of the rows.

    Raises
    ------
    CorpusError
        Where there is no verse, or a chosen author has no poem.
    ValueError
        For an unknown unit or way.

    Examples
    --------
    >>> poem = Poem("靜夜思", "李白", ("床前明月光，疑是地上霜。",))
    >>> pair = VersePair("床前的月光明亮", "床前明月光")
    >>> sentences, report = make_verses([poem, pair], unit="clause")
    >>> sentences[0]
    Sentence(text='床前明月光', source='李白《靜夜思》', line=1, aliases=('床前的月光明亮',))
    """
    if unit not in get_args(Unit) or by not in get_args(By):
        raise ValueError(
            f"unit is {unit!r} and by is {by!r}; known are {', '.join(get_args(Unit))} and {', '.join(get_args(By))}"
        )
    wanted = None if authors is None else {match_form(author): author for author in authors}
    if wanted is not None and "" in wanted:
        raise ValueError(f"authors has {wanted['']!r}, which has no letter; names are wanted")
    report = PoemReport()
    rows: dict[str, _Row] = {}
    places: dict[str, tuple[str, int]] = {}
    pairs: list[VersePair] = []
    missing = set(wanted or ())
    for entry in entries:
        if isinstance(entry, VersePair):
            report.pairs += 1
            pairs.append(entry)
            continue
        report.poems += 1
        author = match_form(entry.author)
        if wanted is not None and author not in wanted:
            report.other_authors += 1
            continue
        missing.discard(author)
        _take_poem(entry, unit, rows, places, report)
    if missing:
        names = ", ".join(sorted(wanted[form] for form in missing)) if wanted else ""
        raise CorpusError(f"there is no poem by {names}; check the name, or give a file that has one")
    for pair in pairs:
        _take_pair(pair, rows, places, report, strict=wanted is not None)
    if not rows:
        raise CorpusError("there is no verse; give a file of poems or of translated verses")
    report.verses = len(rows)
    report.translated = sum(bool(row.aliases) for row in rows.values())
    aliased = by == "translation"
    return [Sentence(r.text, r.source, r.line, tuple(r.aliases) if aliased else ()) for r in rows.values()], report


def _take_poem(
    poem: Poem, unit: Unit, rows: dict[str, _Row], places: dict[str, tuple[str, int]], report: PoemReport
) -> None:  # fmt: skip
    source = cite(poem.title, poem.author)
    verses: list[tuple[str, int]] = []
    for number, line in enumerate(poem.lines, 1):
        found = split_verses(line, unit)
        verses += [(verse, number) for verse in found]
        for other in get_args(Unit):
            for verse in found if other == unit else split_verses(line, other):
                places.setdefault(match_form(verse), (source, number))
    translations = list(_translations(poem, verses)) if poem.translation else [""] * len(verses)
    for (verse, number), translation in zip(verses, translations, strict=True):
        form = match_form(verse)
        report.repeated += form in rows
        row = rows.setdefault(form, _Row(verse, source, number))
        if translation:
            row.aliases[translation] = None
        elif poem.translation:
            report.unaligned += 1


def _translations(poem: Poem, verses: list[tuple[str, int]]) -> Iterator[str]:
    """Yield the translation of each verse: within its line where the lines agree, else within the poem."""
    if len(poem.translation) != len(poem.lines):
        yield from align_translation([verse for verse, _ in verses], "\n".join(poem.translation))
        return
    for number, translation in enumerate(poem.translation, 1):
        of_line = [verse for verse, line in verses if line == number]
        yield from [translation] if len(of_line) == 1 else align_translation(of_line, translation)


def _take_pair(
    pair: VersePair, rows: dict[str, _Row], places: dict[str, tuple[str, int]], report: PoemReport, *, strict: bool
) -> None:
    form = match_form(pair.verse)
    known = places.get(form)
    if form not in rows:
        if strict and known is None:
            report.other_authors += 1
            return
        rows[form] = _Row(pair.verse, *(known or (pair.source, pair.line)))
    else:
        report.repeated += 1
    report.traced += known is not None
    rows[form].aliases[pair.translation] = None
