"""The plain values that travel between the stages, and the seams between them.

Knows nothing of models, files or scores: it only gives the things their names. Results are frozen; every
sequence in them is a tuple.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Sentence:
    """One row of a corpus.

    Attributes
    ----------
    text
        The sentence in its written form (see `caprag.text.normalize`); lines of one caption are parted by ``"\\n"``.
    source
        The file it came from, as it was named; empty where it came from no file.
    line
        1-based number of its line, caption or row in the source; 0 where there is none.
    aliases
        Further texts that are answered with this sentence when searching by meaning: translations, questions.
    """

    text: str
    source: str = ""
    line: int = 0
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One reading of a picture.

    Attributes
    ----------
    text
        What was read, in the reader's own characters; lines of one caption are parted by ``"\\n"``.
        Empty where the picture has no caption.
    logprob
        Natural logarithm of the probability of the whole text given the picture, in nats, <= 0.
        0.0 for a text that came without a picture.
    """

    text: str
    logprob: float = 0.0


@dataclass(frozen=True, slots=True)
class Hit:
    """One sentence found for a hypothesis.

    Attributes
    ----------
    id
        The sentence's id in its index, >= 0.
    text
        The sentence, as the corpus has it; the half of it, or it and the next one, where captions are such.
    edit
        Edit similarity of the matching forms: 1 - Levenshtein distance / the longer length, in [0, 1]; 0.0 where the
        search was by meaning.
    dense
        Cosine of the embeddings, in [-1, 1]; ``None`` where the dense search did not return the sentence.
    lexical
        BM25 of the character n-grams, >= 0; ``None`` where the lexical search did not return it.
    score
        What the hits of one query are ranked by; no probability, and of no meaning beside those of another query.
    behind
        Id of the sentence that stands behind it in its file, where `text` is both of them; else ``None``.
    """

    id: int
    text: str
    edit: float
    dense: float | None = None
    lexical: float | None = None
    score: float = 0.0
    behind: int | None = None


@dataclass(frozen=True, slots=True)
class Caption:
    """The answer for one picture or one reading.

    Attributes
    ----------
    text
        The answer: the hit's sentence, or the first hypothesis as read.
    hit
        The sentence that the reading was snapped to; ``None`` = kept as read.
    hypotheses
        What was read, best first; never empty.
    confidence
        Estimated probability that `text` is what the picture shows, in [0, 1].
    evidence
        What the decision rests on: feature name to value, for the best candidate. Empty where there was none.
    considered
        The sentences that were weighed: the best candidate, whether it is the answer or not, and the runner-up.
    parts
        The answers to its two parts, where they are two sentences, or a sentence and what was kept as read: `hit` is
        the first sentence then, and what is kept or stands between them is in its written form. Else empty.
    """

    text: str
    hit: Hit | None
    hypotheses: tuple[Hypothesis, ...]
    confidence: float
    evidence: Mapping[str, float] = field(default_factory=dict)
    considered: tuple[Hit, ...] = ()
    parts: tuple[Caption, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A caption with the time it stands on the screen.

    Attributes
    ----------
    caption
        The answer.
    start, end
        Seconds from the beginning of the video, 0 <= start <= end.
    """

    caption: Caption
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Report:
    """A measured figure that can be reproduced.

    Attributes
    ----------
    name
        The metric, for example ``"cer"``.
    value
        The figure, in the metric's own unit.
    interval
        Lower and upper end of its 95 % interval, in the same unit.
    signature
        All that is needed to measure it again: character class, counts, resampling, seed.
    """

    name: str
    value: float
    interval: tuple[float, float]
    signature: str

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.name} {self.value:.4f} [{low:.4f}, {high:.4f}]\n{self.signature}"


@runtime_checkable
class Recognizer(Protocol):
    """A reader of pictures: pictures in, readings out, lists of equal length."""

    def recognize_batch(self, images: Sequence[Image.Image], n_best: int = 1) -> list[list[Hypothesis]]:
        """Read each picture.

        Parameters
        ----------
        images
            Frames or crops, RGB, any size.
        n_best
            At most this many hypotheses a picture, >= 1.

        Returns
        -------
        list of list of Hypothesis
            One list a picture, best first, texts distinct, never empty: a picture without a caption gives one
            hypothesis with an empty text.
        """
        ...

    def score_batch(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Score given texts for each picture.

        Parameters
        ----------
        images
            Frames or crops, RGB, any size.
        texts
            For each picture the texts to score; may differ in number.

        Returns
        -------
        list of list of float
            ln p(text | picture) in nats, each <= 0, in the order of `texts`; ``-inf`` for a text that the reader
            can't produce.
        """
        ...


@runtime_checkable
class Embedder(Protocol):
    """A map from texts to unit vectors."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def name(self) -> str:
        """The id or folder it was loaded from, as a user would write it to load it again."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash that changes when the vectors would."""
        ...

    def embed(self, texts: Sequence[str], *, progress: bool = False) -> npt.NDArray[np.float32]:
        """Embed texts.

        Parameters
        ----------
        texts
            Any strings.
        progress
            Whether to show a progress bar on stderr.

        Returns
        -------
        numpy.ndarray
            Shape (len(texts), dimension), float32, rows of Euclidean length 1.
        """
        ...
