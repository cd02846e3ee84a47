"""A sentence with the marks and spaces of the reading that was snapped to it."""

from __future__ import annotations

from rapidfuzz.distance import Levenshtein

from caprag.text import countable, normalize


def with_marks_of(reading: str, sentence: str) -> str:
    """Return the letters and digits of a sentence with the marks and spaces of a reading.

    Parameters
    ----------
    reading
        As it was read.
    sentence
        What it was snapped to.

    Returns
    -------
    str
        Each mark stands before the letter that it stands before in the reading, by a shortest sequence of edits; of
        the sentence's own marks and spaces those within a word or figure of ASCII stay.

    Examples
    --------
    >>> with_marks_of("喂！你去邦？", "喂, 你去哪。")
    '喂！你去哪？'
    """
    letters, marks = _apart(reading)
    wanted, own = _apart(sentence)
    said = [""] * (len(wanted) + 1)
    for before, mark in enumerate(marks):
        said[aligned_place(letters, wanted, before)] += mark
    for place in range(1, len(wanted)):
        if not said[place] and (wanted[place - 1] + wanted[place]).isascii():
            said[place] = own[place]
    return said[0] + "".join(letter + mark for letter, mark in zip(wanted, said[1:], strict=True))


def _apart(text: str) -> tuple[str, list[str]]:
    """Return the letters, and what stands before, between and behind them."""
    letters, marks = "", [""]
    for character in text:
        # Of a character that normalisation makes into several.
        if found := countable(character):
            letters += found
            marks += [""] * len(found)
        elif character.isspace() or normalize(character):
            marks[-1] += character
    return letters, marks


def aligned_place(letters: str, wanted: str, before: int) -> int:
    """Return how many letters of one text stand before what stands behind so many of another, by fewest edits."""
    if before in (0, len(letters)):
        return len(wanted) if before else 0
    for code in Levenshtein.opcodes(letters, wanted):
        if code.src_start <= before < code.src_end:
            return min(code.dest_end, code.dest_start + before - code.src_start)
    return len(wanted)


def lettered(text: str) -> tuple[list[int], str]:
    """Return where a text's letters and digits stand, and these alone."""
    places = [place for place, character in enumerate(text) if countable(character)]
    return places, "".join(text[place] for place in places)


__all__ = ["aligned_place", "lettered", "with_marks_of"]
