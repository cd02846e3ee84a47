"""What a decision did to each line: the eight outcomes of snapping and keeping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caprag.text import Characters, countable
from caprag.types import Caption


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Lines by what was done with them and how it came out; right means that all counted characters agree.

    Attributes
    ----------
    snapped_right, snapped_wrong
        Answered with a sentence of the corpus.
    kept_right, kept_wrong
        Answered with the reading.
    mended
        Wrong as read, right as answered.
    harmed
        Right as read, wrong as answered.
    """

    snapped_right: int
    snapped_wrong: int
    kept_right: int
    kept_wrong: int
    mended: int
    harmed: int

    @property
    def lines(self) -> int:
        """Number of lines."""
        return self.snapped_right + self.snapped_wrong + self.kept_right + self.kept_wrong

    @property
    def harm(self) -> float:
        """Share of all lines that were harmed, in [0, 1]; ``nan`` without a line."""
        return self.harmed / self.lines if self.lines else float("nan")


def count_outcomes(
    captions: Sequence[Caption], references: Sequence[str], *, characters: Characters = "letters"
) -> Outcomes:
    """Count what snapping and keeping did.

    Parameters
    ----------
    captions
        The answers.
    references
        The truth, as many.
    characters
        Which characters must agree for a line to be right.

    Returns
    -------
    Outcomes
        Counts over all lines.

    Raises
    ------
    ValueError
        Where the lists differ in length or `characters` is unknown.
    """
    if len(captions) != len(references):
        raise ValueError(f"there are {len(captions)} captions and {len(references)} references; they must be as many")
    tally: dict[tuple[bool, bool], int] = {}
    mended = harmed = 0
    for caption, reference in zip(captions, references, strict=True):
        truth = countable(reference, characters)
        right = countable(caption.text, characters) == truth
        read_right = countable(caption.hypotheses[0].text, characters) == truth
        case = (caption.hit is not None, right)
        tally[case] = tally.get(case, 0) + 1
        mended += right and not read_right
        harmed += read_right and not right
    return Outcomes(
        tally.get((True, True), 0), tally.get((True, False), 0), tally.get((False, True), 0),
        tally.get((False, False), 0), mended, harmed,
    )  # fmt: skip
