"""Reading captions with RapidOCR: find the texts, choose the caption, read it with its runners-up.

The networks (PP-OCRv6 small: DB detector, CTC recogniser) come inside rapidocr's wheel; nothing is
downloaded. The recogniser's whole output matrix is kept, so that a picture gives n-best readings and a
probability for any text.

What characters are to this reader: classes of its network that NFKC makes equal (full and half width) count
as one, their probabilities added and the likeliest spelling written; white space is layout, not text, and a
text is as probable with it as without. Knows nothing of corpora, and converts no character variants.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import unicodedata
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rapidocr
from PIL import Image
from rapidocr.ch_ppocr_det.main import TextDetector
from rapidocr.ch_ppocr_rec.main import TextRecognizer
from rapidocr.utils.process_img import get_rotate_crop_image

from caprag.errors import ModelError
from caprag.recognition.ctc_decoding import (
    best_split_logprob,
    forward_logprobs,
    log_probabilities,
    prefix_beam_search,
)
from caprag.recognition.layout import Quad, TextBox, caption_rows, could_be_caption, join_neighbours
from caprag.types import Hypothesis

DETECTION_SIDE = 608
"""Length of the picture's shorter side for the detector, in pixels, a multiple of 32. On 276 frames of three
programmes 480 and 736 find the same captions; 480 cuts and adds one character more."""

SIDE_MARGIN = 0.25
"""What a crop gets left and right of its box, in heights: brings back thin strokes at the ends."""

STRIP_RATIO, STRIP_HEIGHT = 3.0, 120
"""A picture wider than so many heights (the widest film has 2.8), or lower than so many pixels, is a strip
that was cut out around a caption."""

DOUBLES = {"⋯": "…", "‧": "·", "─": "—", "﹣": "-", "﹑": "、"}
"""Signs the network lacks, and the ones it reads where they are drawn."""

MAX_SIDE = 4096
"""Longest side, in pixels, of a strip or of a picture too tall for the detector; longer ones are shrunk."""

BAND_MARGIN = 0.5
"""What a band gets around the caption's boxes, in heights of the tallest: room that readers of pages are used to."""

MIN_HEIGHT = 8
"""Boxes lower than so many pixels are passed over: type that small can't be read."""

TOP_CLASSES = 8
"""Characters tried at each step of the beam search."""

_MODELS = {"Det": "PP-OCRv6_det_small.onnx", "Rec": "PP-OCRv6_rec_small.onnx"}
_BLANK = 0
_LUMA_BGR = np.array([0.114, 0.587, 0.299])

_Labels = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """One box of a caption, read.

    Attributes
    ----------
    logprobs
        Shape (T, groups), float32, nats.
    spelling
        Shape (groups,): the class that stands for each group in this box.
    separator
        What joins it to the part before: a space, or a line break at the beginning of a row.
    """

    logprobs: npt.NDArray[np.float32]
    spelling: npt.NDArray[np.int64]
    separator: str


class _Alphabet:
    """The classes of the recogniser, in groups that NFKC makes equal; group 0 is the blank.

    Attributes
    ----------
    characters
        The character of each class; the first is not one but the blank's name.
    space
        The group of white space.
    """

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters = tuple(characters)
        self._groups: dict[str, int] = {}
        group_of = [self._groups.setdefault(_fold(character), len(self._groups)) for character in characters]
        self._leaders = np.array([group_of.index(group) for group in range(len(self._groups))], dtype=np.int64)
        self._others = np.setdiff1d(np.arange(len(group_of)), self._leaders)
        self._groups_of_others = np.array(group_of, dtype=np.int64)[self._others]
        self.space = self._groups[" "]

    def fold(self, matrix: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Give the logarithms of the groups' probabilities, (T, groups), and each group's likeliest class."""
        folded = matrix[:, self._leaders]
        np.add.at(folded.T, self._groups_of_others, matrix[:, self._others].T)
        spelling, peaks = self._leaders.copy(), matrix.max(axis=0)
        for group, label in zip(self._groups_of_others.tolist(), self._others.tolist(), strict=True):
            if peaks[label] > peaks[spelling[group]]:
                spelling[group] = label
        return log_probabilities(folded).astype(np.float32), spelling

    def labellings(self, text: str) -> list[_Labels]:
        """Give the ways to write a text in groups, with white space and without; none where impossible."""
        words = [self._word(word) for word in text.split()]
        if any(word is None for word in words):
            return []
        known = [word for word in words if word is not None]
        spaced = tuple(itertools.chain.from_iterable((self.space, *word) for word in known))[1:]
        return list(dict.fromkeys([spaced, self.letters(spaced)]))

    def letters(self, labels: _Labels) -> _Labels:
        """Leave out the white space."""
        return tuple(label for label in labels if label != self.space)

    def _word(self, word: str) -> _Labels | None:
        labels: list[int] = []
        for character in word:
            folded = _fold(character)
            for spelling in ([folded], list(DOUBLES.get(folded, "")), list(unicodedata.normalize("NFKC", folded))):
                if spelling and all(one in self._groups for one in spelling):
                    labels += [self._groups[one] for one in spelling]
                    break
            else:
                return None
        return tuple(labels)


class RapidOCRRecognizer:
    """A `Recognizer` on RapidOCR's networks, on the CPU.

    Every picture is worked on by itself, so batches and singles give the same; on a CPU batching gains no
    time. One recogniser serves one thread at a time.

    Parameters
    ----------
    beam_width
        Prefixes that the beam search keeps, >= 1; at least `n_best` are kept whatever it says.
    n_threads
        Threads of the networks, >= 1; ``None`` leaves it to ONNX Runtime, which takes all cores.
    cache_size
        Readings kept, >= 0, so that scoring texts for pictures just recognised costs no second pass; best at
        least the length of a batch. One takes about 4 MB.

    Raises
    ------
    ValueError
        Where a number is out of its range.
    ModelError
        Where the installed rapidocr lacks the networks.

    Examples
    --------
    >>> recognizer = RapidOCRRecognizer(n_threads=1)
    >>> grey = Image.new("RGB", (320, 180), (128, 128, 128))
    >>> recognizer.recognize_batch([grey])
    [[Hypothesis(text='', logprob=0.0)]]
    >>> recognizer.score_batch([grey], [["", "早安"]])
    [[0.0, -inf]]
    """

    def __init__(self, *, beam_width: int = 16, n_threads: int | None = None, cache_size: int = 32) -> None:
        if beam_width < 1:
            raise ValueError(f"beam_width must be >= 1, got {beam_width}")
        if n_threads is not None and n_threads < 1:
            raise ValueError(f"n_threads must be >= 1 or None, got {n_threads}")
        if cache_size < 0:
            raise ValueError(f"cache_size must be >= 0, got {cache_size}")
        self.beam_width = beam_width
        self.cache_size = cache_size
        self._cache: OrderedDict[tuple[tuple[int, int], bytes], tuple[_Part, ...]] = OrderedDict()
        self._detector, self._reader = _load_networks(n_threads)
        self._alphabet = _Alphabet(self._reader.postprocess_op.character)

    def recognize_batch(self, images: Sequence[Image.Image], n_best: int = 1) -> list[list[Hypothesis]]:
        """Read the caption of each picture.

        Parameters
        ----------
        images
            Frames of any size, or strips cut out around a caption; modes other than RGB are converted.
        n_best
            At most this many hypotheses a picture, >= 1.

        Returns
        -------
        list of list of Hypothesis
            One list a picture, best first, texts distinct beyond white space and width, never empty. Stacked
            rows are parted by a line break, two speakers side by side by a space. ``[Hypothesis("", 0.0)]``
            for a picture without a caption.

        Raises
        ------
        ValueError
            Where `n_best` is below 1, or an image has no pixels.
        TypeError
            Where an image is not a `PIL.Image.Image`.
        """
        if n_best < 1:
            raise ValueError(f"n_best must be >= 1, got {n_best}")
        return [self._hypotheses(self._read(image), n_best) for image in images]

    def score_batch(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Score given texts for each picture.

        Parameters
        ----------
        images
            Frames of any size, or strips cut out around a caption; modes other than RGB are converted.
        texts
            For each picture the texts to score; may differ in number.

        Returns
        -------
        list of list of float
            ln p(text | picture) in nats, each <= 0. Where the caption has several boxes, that of the best
            split of the text over them, in reading order. ``-inf`` for a text with a character that the
            network lacks, for one that is too long, and for any text but the empty one where there is no
            caption.

        Raises
        ------
        ValueError
            Where `images` and `texts` differ in length, or an image has no pixels.
        TypeError
            Where an image is not a `PIL.Image.Image`.
        """
        if len(images) != len(texts):
            raise ValueError(f"images and texts must have equal lengths, got {len(images)} and {len(texts)}")
        return [self._scores(self._read(image), row) for image, row in zip(images, texts, strict=True)]

    def _read(self, image: Image.Image) -> tuple[_Part, ...]:
        """Give the parts of a picture's caption in reading order, from the cache where it was read before."""
        if not isinstance(image, Image.Image):
            raise TypeError(f"images must be PIL images, got {type(image).__name__}; open_frame(path) gives one")
        if min(image.size) < 1:
            raise ValueError(f"images must have pixels, got the size {image.size}")
        image = image.convert("RGB")
        key = (image.size, hashlib.blake2b(image.tobytes()).digest())
        parts = self._cache.pop(key, None)
        if parts is None:
            parts = self._find_and_read(image)
        if self.cache_size:
            self._cache[key] = parts
            if len(self._cache) > self.cache_size:
                self._cache.popitem(last=False)
        return parts

    def find_batch(self, images: Sequence[Image.Image]) -> list[tuple[int, int, int, int] | None]:
        """Find the caption of each picture, for another reader.

        Parameters
        ----------
        images
            Frames of any size, or strips cut out around a caption, RGB.

        Returns
        -------
        list of tuple of int or None
            The caption's left, top, right and bottom side in pixels, with `BAND_MARGIN` around its rows. A strip
            is a caption from side to side. ``None`` where there is no caption.
        """
        return [self._find_band(image) for image in images]

    def _find_band(self, image: Image.Image) -> tuple[int, int, int, int] | None:
        rows, boxes, _, (across, down, scale) = self._find(image)
        if not rows:
            return None
        if _is_strip(image):
            return (0, 0, *image.size)
        chosen = [boxes[i] for row in rows for i in row]
        margin = BAND_MARGIN * max(box.height for box in chosen)
        heights = [y for box in chosen for _, y in box.quad]
        left, right = min(box.left for box in chosen) - margin, max(box.right for box in chosen) + margin
        top, bottom = min(heights) - margin, max(heights) + margin
        return (
            max(0, math.floor((left - across) / scale)),
            max(0, math.floor((top - down) / scale)),
            min(image.width, math.ceil((right - across) / scale)),
            min(image.height, math.ceil((bottom - down) / scale)),
        )

    def _find_and_read(self, image: Image.Image) -> tuple[_Part, ...]:
        rows, _, matrices, _ = self._find(image)
        parts = []
        for row in rows:
            for place, i in enumerate(row):
                parts.append(_Part(*self._alphabet.fold(matrices[i]), " " if place else "\n"))
        return tuple(parts)

    def _find(
        self, image: Image.Image
    ) -> tuple[list[list[int]], list[TextBox], list[npt.NDArray[np.float32]], tuple[int, int, float]]:
        """Give the caption's rows as indices of boxes, all boxes, their matrices, and how the picture was set."""
        strip = _is_strip(image)
        padded, offset = _pad(image, strip)
        likely = [box for box in self._detect(padded) if could_be_caption(box, padded.size, strip=strip)]
        pixels = np.ascontiguousarray(np.asarray(padded)[:, :, ::-1])
        matrices, boxes = [], []
        for box in join_neighbours(likely):
            crop = _crop(pixels, box)
            matrix = self._matrix(crop)
            matrices.append(matrix)
            boxes.append(self._with_reading(box, crop, matrix))
        return caption_rows(boxes, padded.size, strip=strip), boxes, matrices, offset

    def _detect(self, image: Image.Image) -> list[TextBox]:
        scale = DETECTION_SIDE / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        found = self._detector(np.asarray(image.resize(size, Image.Resampling.BICUBIC))[:, :, ::-1]).boxes
        if found is None:
            return []
        corners = np.asarray(found, dtype=np.float64) * [image.width / size[0], image.height / size[1]]
        boxes = [TextBox(_quad(box)) for box in corners]
        return [box for box in boxes if box.height >= MIN_HEIGHT]

    def _matrix(self, crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run the recogniser on a crop at its own width: shape (T, classes), each row summing to 1."""
        prepared = self._reader.resize_norm_img(crop, crop.shape[1] / crop.shape[0])
        matrix: npt.NDArray[np.float32] = self._reader.session(prepared[np.newaxis])[0]
        return matrix

    def _with_reading(self, box: TextBox, crop: npt.NDArray[np.uint8], matrix: npt.NDArray[np.float32]) -> TextBox:
        best = matrix.argmax(axis=1)
        fresh = best != _BLANK
        fresh[1:] &= best[1:] != best[:-1]
        text = "".join(self._alphabet.characters[label] for label in best[fresh])
        confidence = float(matrix.max(axis=1)[fresh].mean()) if text else 0.0
        dark, light = np.percentile(crop @ _LUMA_BGR, (5, 97))
        return TextBox(box.quad, text, min(confidence, 1.0), float(light - dark))

    def _hypotheses(self, parts: tuple[_Part, ...], n_best: int) -> list[Hypothesis]:
        if not parts:
            return [Hypothesis("", 0.0)]
        joined: list[tuple[str, float]] = [("", 0.0)]
        for part in parts:
            readings = self._part_readings(part, n_best)
            combined = [
                (before + (part.separator if before and text else "") + text, logprob + more)
                for (before, logprob), (text, more) in itertools.product(joined, readings)
            ]
            distinct: dict[str, tuple[str, float]] = {}
            for text, logprob in sorted(combined, key=_best_first):
                distinct.setdefault("".join(text.split()), (text, logprob))
            joined = list(distinct.values())[:n_best]
        texts = [text for text, _ in joined]
        scored = sorted(zip(texts, self._scores(parts, texts), strict=True), key=_best_first)
        return [Hypothesis(text, logprob) for text, logprob in scored]

    def _part_readings(self, part: _Part, n_best: int) -> list[tuple[str, float]]:
        """Give a part's best texts, distinct beyond white space, with their log-probabilities."""
        width = max(self.beam_width, n_best)
        readings: dict[_Labels, tuple[str, float]] = {}
        for labels, logprob in prefix_beam_search(part.logprobs, _BLANK, width, width, TOP_CLASSES):
            spelt = "".join(self._alphabet.characters[part.spelling[label]] for label in labels)
            readings.setdefault(self._alphabet.letters(labels), (" ".join(spelt.split()), logprob))
        return list(readings.values())[:n_best]

    def _scores(self, parts: tuple[_Part, ...], texts: Sequence[str]) -> list[float]:
        if not parts:
            return [-math.inf if text.strip() else 0.0 for text in texts]
        ways = [(place, labels) for place, text in enumerate(texts) for labels in self._alphabet.labellings(text)]
        used = sorted({_BLANK, self._alphabet.space}.union(*(labels for _, labels in ways)))
        column = {label: i for i, label in enumerate(used)}
        tables = [part.logprobs[:, used] for part in parts]
        labellings = [[column[label] for label in labels] for _, labels in ways]
        space = column[self._alphabet.space]
        if len(tables) == 1:
            logprobs = forward_logprobs(tables[0], labellings, _BLANK).tolist()
        else:
            logprobs = [best_split_logprob(tables, labels, _BLANK, space) for labels in labellings]
        scores = [-math.inf] * len(texts)
        for (place, _), logprob in zip(ways, logprobs, strict=True):
            scores[place] = max(scores[place], logprob)
        return scores


def _load_networks(n_threads: int | None) -> tuple[TextDetector, TextRecognizer]:
    models = {part: Path(rapidocr.__file__).parent / "models" / name for part, name in _MODELS.items()}
    for path in models.values():
        if not path.is_file():
            remedy = "pip install --force-reinstall 'rapidocr>=3.10,<4'"
            raise ModelError(f"{path}: the network is missing; get it with: {remedy}")
    params: dict[str, Any] = {f"{part}.model_path": str(path) for part, path in models.items()}
    params["Global.log_level"] = "critical"
    params["EngineConfig.onnxruntime.intra_op_num_threads"] = -1 if n_threads is None else n_threads
    # The picture comes in the size the detector is to see; the least it may have is one cell of the network.
    params["Det.limit_side_len"] = 32
    config = rapidocr.RapidOCR(params=params).cfg
    for part in models:
        config[part].engine_cfg = config.EngineConfig.onnxruntime
    return TextDetector(config.Det), TextRecognizer(config.Rec)


def _is_strip(image: Image.Image) -> bool:
    return image.width > STRIP_RATIO * image.height or image.height < STRIP_HEIGHT


def _pad(image: Image.Image, strip: bool) -> tuple[Image.Image, tuple[int, int, float]]:
    """Set a strip, or a picture that is too tall for the detector, on a 16:9 ground of its mean colour.

    Beside the ground: where the picture's left top corner stands in it, and at what scale.
    """
    if not strip and image.height <= STRIP_RATIO * image.width:
        return image, (0, 0, 1.0)
    scale = 1.0
    if max(image.size) > MAX_SIDE:
        # A thread of a picture would want a ground of any size.
        scale = MAX_SIDE / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    margin = image.height if strip else 0
    width = max(image.width + 2 * margin, round((image.height + 2 * margin) * 16 / 9))
    height = max(image.height, round(width * 9 / 16))
    colour = image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    ground = Image.new("RGB", (width, height), colour)
    place = ((width - image.width) // 2, (height - image.height) // 2)
    ground.paste(image, place)
    return ground, (*place, scale)


def _crop(pixels: npt.NDArray[np.uint8], box: TextBox) -> npt.NDArray[np.uint8]:
    """Cut a box out, upright, with some room at its ends."""
    quad = np.array(box.quad, dtype=np.float64)
    along = (quad[1] - quad[0] + quad[2] - quad[3]) / 2
    margin = along / np.linalg.norm(along) * box.height * SIDE_MARGIN
    quad += np.array([-margin, margin, margin, -margin])
    quad = quad.clip(0, [pixels.shape[1] - 1, pixels.shape[0] - 1])
    crop: npt.NDArray[np.uint8] = get_rotate_crop_image(pixels, quad.astype(np.float32))
    return crop


def _quad(corners: npt.NDArray[np.float64]) -> Quad:
    one, two, three, four = ((float(x), float(y)) for x, y in corners)
    return one, two, three, four


def _fold(character: str) -> str:
    folded = unicodedata.normalize("NFKC", character)
    return folded if len(folded) == 1 else character


def _best_first(item: tuple[str, float]) -> tuple[float, str]:
    return -item[1], item[0]
