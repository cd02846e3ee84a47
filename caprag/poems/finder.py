"""From a picture or plain words to the verse.

The words, the description of the picture, and both together are looked up by meaning; the line that the describing
model thought of itself is looked up by its letters; a cross-encoder may put all of them in order. Knows nothing of how
the verses came into the index.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from caprag.poems.alignment import split_clauses
from caprag.poems.corpus import parse_citation
from caprag.text import match_form, normalize
from caprag.types import Recognizer

if TYPE_CHECKING:
    from PIL import Image

    from caprag.reranking.cross_encoder import CrossEncoderScorer
    from caprag.retrieval import Index

Origin = Literal["words", "description", "line"]
"""Where a verse came from: the user's words, the description of the picture, the line the model thought of."""
_ORIGINS: tuple[Origin, ...] = get_args(Origin)

PROMPT = (
    "請用一兩句白話描述圖中的景物、時節與心情，不要解釋。然後另起一行，以「詩：」開頭，寫一句意思最貼近的古詩詞。\n"
    "Say in one or two plain Chinese sentences what the picture shows, its season and its mood, without explaining. "
    "Then, on a new line that begins with 詩：, write the line of classical Chinese poetry that is closest to it."
)
"""What a model that follows instructions is asked, unless the user asks something else."""

_LINE = re.compile(r"(?:^|\n)[\s\W]*(?:詩句|诗句|詩|诗|verse|poem)[*」』\"]*\s*[:：]\s*(.+?)\s*(?=\n|$)", re.IGNORECASE)
# Of reciprocal rank fusion: Cormack, Clarke and Büttcher, SIGIR 2009.
_FUSION = 60
_NEAR = 0.6


@dataclass(frozen=True, slots=True)
class Verse:
    """An answer.

    Attributes
    ----------
    text
        The verse.
    title, author, line
        The poem, and the 1-based number of the line in it; empty and 0 where they are not known.
    score
        The cross-encoder's probability, in (0, 1); without one the sum of 1 / (60 + rank) over the searches that
        found it, in (0, 0.1). Higher is better.
    origins
        Where it came from, in the order of `Origin`; never empty.
    id
        Of the sentence in the index; ``None`` for a line of the model that no index entry has: it may be made up.
    """

    text: str
    title: str
    author: str
    line: int
    score: float
    origins: tuple[Origin, ...]
    id: int | None

    @property
    def known(self) -> bool:
        """Whether it stands in the index."""
        return self.id is not None


@dataclass(frozen=True, slots=True)
class Description:
    """What a model said of a picture.

    Attributes
    ----------
    text
        The description; empty where it said nothing.
    line
        The verse it thought of; empty where it thought of none.
    """

    text: str
    line: str


def parse_reply(reply: str) -> Description:
    """Take a model's reply apart.

    Parameters
    ----------
    reply
        The description, and perhaps a line that begins with 詩：, 詩句：, Verse: or Poem:, in whatever brackets.

    Examples
    --------
    >>> parse_reply("月光照在床前，像霜一樣。\\n詩：「床前明月光」")
    Description(text='月光照在床前,像霜一樣。', line='床前明月光')
    >>> parse_reply("a moonlit bed").line
    ''
    """
    text = normalize(reply)
    found = _LINE.search(text)
    if found is None:
        return Description(text, "")
    rest = normalize(text[: found.start()] + "\n" + text[found.end() :])
    return Description(rest, found[1].strip(" 「」『』《》\"'“”‘’*"))


class PoemFinder:
    """Finds verses for words and pictures.

    Parameters
    ----------
    index
        Verses, as `caprag.poems.make_verses` makes them.
    recognizer
        Describes pictures: a vision-language model that was given `PROMPT`. Any other recognizer serves too; then
        what it reads is the description. ``None``: words alone.
    cross_encoder
        Puts the candidates in order; ``None`` leaves them in that of the searches.
    candidates
        How many each search proposes, >= 1.

    Raises
    ------
    ValueError
        For less than one candidate.
    """

    def __init__(
        self,
        index: Index,
        recognizer: Recognizer | None = None,
        cross_encoder: CrossEncoderScorer | None = None,
        *,
        candidates: int = 50,
    ) -> None:
        if candidates < 1:
            raise ValueError(f"candidates is {candidates}; at least 1 is needed")
        self._index = index
        self._recognizer = recognizer
        self._cross_encoder = cross_encoder
        self._candidates = candidates

    def find(self, text: str | None = None, image: Image.Image | None = None, k: int = 5) -> list[Verse]:
        """Find verses for words, a picture, or both; see `find_batch`."""
        return self.find_batch([text], [image], k)[0]

    def find_batch(
        self, texts: Sequence[str | None], images: Sequence[Image.Image | None] | None = None, k: int = 5
    ) -> list[list[Verse]]:
        """Find verses.

        Parameters
        ----------
        texts
            The user's words for each query; ``None`` for a picture alone.
        images
            The picture of each query; ``None`` for words alone.
        k
            At most this many verses for each, >= 1.

        Returns
        -------
        list of list of Verse
            As many as queries, best first, texts distinct.

        Raises
        ------
        ValueError
            For `k` below 1, lists of unequal length, a query of neither words nor picture, or a picture without a
            recognizer.
        TypeError
            For a single string.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts is the string {texts[:20]!r}; a list of texts is wanted (or use find)")
        pictures = [None] * len(texts) if images is None else list(images)
        if len(pictures) != len(texts):
            raise ValueError(f"there are {len(texts)} texts and {len(pictures)} images; as many are wanted")
        shown = [i for i, picture in enumerate(pictures) if picture is not None]
        described = dict(zip(shown, self.describe([p for p in pictures if p is not None]), strict=True))
        return self.find_described(texts, [described.get(i) for i in range(len(texts))], k)

    def describe(self, images: Sequence[Image.Image]) -> list[Description]:
        """Have pictures described.

        Parameters
        ----------
        images
            Any size.

        Returns
        -------
        list of Description
            As many as pictures.

        Raises
        ------
        ValueError
            Where there are pictures and no recognizer.
        """
        if not images:
            return []
        if self._recognizer is None:
            raise ValueError(f"there are {len(images)} pictures and no recognizer; name a vision-language model")
        return [parse_reply(read[0].text) for read in self._recognizer.recognize_batch(images)]

    def find_described(
        self, texts: Sequence[str | None], descriptions: Sequence[Description | None], k: int = 5
    ) -> list[list[Verse]]:
        """Find verses for words and for pictures that are described already; see `find_batch`."""
        if k < 1:
            raise ValueError(f"k is {k}; at least 1 is needed")
        if len(texts) != len(descriptions):
            raise ValueError(f"there are {len(texts)} texts and {len(descriptions)} descriptions; as many are wanted")
        queries = []
        for number, (text, description) in enumerate(zip(texts, descriptions, strict=True)):
            if text is None and description is None:
                raise ValueError(f"query {number} has neither text nor image; one of them is wanted")
            queries.append(_Query(normalize(text or ""), description or Description("", "")))
        pools = self._search(queries, max(k, self._candidates))
        self._add_lines(queries, pools)
        if self._cross_encoder is not None:
            pairs = [(q.whole, c.text) for q, pool in zip(queries, pools, strict=True) for c in pool.values()]
            scores = iter(self._cross_encoder.score(pairs).tolist())
            for pool in pools:
                for candidate in pool.values():
                    candidate.score = next(scores)
        return [self._best(pool.values(), k) for pool in pools]

    def _search(self, queries: Sequence[_Query], depth: int) -> list[dict[str, _Candidate]]:
        """Look up words, description and both for every query at once, and add the ranks up."""
        asked = [(i, text, origins) for i, query in enumerate(queries) for text, origins in query.searches()]
        found = self._index.search_batch([text for _, text, _ in asked], depth, by="meaning") if asked else []
        pools: list[dict[str, _Candidate]] = [{} for _ in queries]
        for (place, _, origins), hits in zip(asked, found, strict=True):
            for rank, hit in enumerate(hits, 1):
                candidate = pools[place].setdefault(hit.text, _Candidate(hit.text, hit.id))
                candidate.score += 1 / (_FUSION + rank)
                # What both together find came from both, unless one of them finds it alone.
                if len(origins) == 1 or not candidate.origins:
                    candidate.origins.update(origins)
        return pools

    def _add_lines(self, queries: Sequence[_Query], pools: Sequence[dict[str, _Candidate]]) -> None:
        """Join the lines that the model thought of: as the index has them, else as they are."""
        places = [i for i, query in enumerate(queries) if match_form(query.description.line)]
        # The index may hold couplets or single verses.
        spellings = [_spellings(queries[i].description.line) for i in places]
        flat = [text for several in spellings for text in several]
        nearest = iter(self._index.search_batch(flat, 1) if flat else [])
        for place, several in zip(places, spellings, strict=True):
            hits = {hit.id: hit for text in several for hit in next(nearest)}
            exact = [hit for hit in hits.values() if hit.edit == 1.0]
            joined: list[_Candidate] = [_Candidate(hit.text, hit.id) for hit in exact]
            if not exact:
                near = max(hits.values(), key=lambda hit: hit.edit, default=None)
                if near is not None and near.edit >= _NEAR:
                    joined.append(_Candidate(near.text, near.id))
                joined.append(_Candidate(several[0], None))
            for rank, line in enumerate(joined, 1):
                candidate = pools[place].setdefault(line.text, line)
                candidate.score += 1 / (_FUSION + rank)
                candidate.origins.add("line")

    def _best(self, candidates: Iterable[_Candidate], k: int) -> list[Verse]:
        ranked = sorted(candidates, key=lambda c: (-c.score, c.id is None, c.id or 0))
        return [self._verse(candidate) for candidate in ranked[:k]]

    def _verse(self, candidate: _Candidate) -> Verse:
        origins = tuple(origin for origin in _ORIGINS if origin in candidate.origins)
        if candidate.id is None:
            return Verse(candidate.text, "", "", 0, candidate.score, origins, None)
        sentence = self._index[candidate.id]
        title, author = parse_citation(sentence.source)
        line = sentence.line if title or author else 0
        return Verse(candidate.text, title, author, line, candidate.score, origins, candidate.id)


@dataclass(frozen=True, slots=True)
class _Query:
    words: str
    description: Description

    @property
    def whole(self) -> str:
        """All that is known of what is wanted."""
        return "\n".join(filter(None, [self.words, self.description.text]))

    def searches(self) -> list[tuple[str, tuple[Origin, ...]]]:
        """Return what is looked up, parts first, and what each stands for."""
        parts: list[tuple[str, tuple[Origin, ...]]] = []
        if match_form(self.words):
            parts.append((self.words, ("words",)))
        if match_form(self.description.text):
            parts.append((self.description.text, ("description",)))
        return [*parts, (self.whole, ("words", "description"))] if len(parts) == 2 else parts


class _Candidate:
    """A verse on its way: its score and origins grow."""

    __slots__ = ("id", "origins", "score", "text")

    def __init__(self, text: str, number: int | None) -> None:
        self.text = text
        self.id = number
        self.score = 0.0
        self.origins: set[Origin] = set()


def _spellings(line: str) -> list[str]:
    """Return a line and, where it has several, its clauses."""
    clauses = split_clauses(line)
    return [line, *clauses] if len(clauses) > 1 else [line]
