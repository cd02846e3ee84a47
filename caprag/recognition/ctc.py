"""Reading captions with RapidOCR: find the texts, choose the caption, read it with its runners-up.

The networks (PP-OCRv6 small: DB detector, CTC recogniser) come inside rapidocr's wheel; nothing is
downloaded. The recogniser's whole output matrix is kept, so that a picture gives n-best readings and a
probability for any text.

Full and half width are one (`alphabet`); white space is layout, not text, and a text is as probable with it as
without. Knows nothing of corpora, and converts no character variants.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
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
from caprag.recognition.alphabet import Alphabet, Labels
from caprag.recognition.ctc_decoding import best_split_logprob, forward_logprobs, prefix_beam_search
from caprag.recognition.layout import Quad, TextBox, caption_rows, could_be_caption, join_neighbours
from caprag.recognition.parts import Part, combine
from caprag.types import Hypothesis

DETECTION_SIDE = 608
"""Length of the picture's shorter side for the detector, in pixels, a multiple of 32. On 276 frames of three
programmes 480 and 736 find the same captions; 480 cuts and adds one character more."""

SIDE_MARGIN = 0.25
"""What a crop gets left and right of its box, in heights: brings back thin strokes at the ends."""

STRIP_RATIO, STRIP_HEIGHT = 3.0, 120
"""A picture wider than so many heights (the widest film has 2.8), or lower than so many pixels, is a strip
that was cut out around a caption."""

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


@dataclass(frozen=True, slots=True)
class _Located:
    """The texts of a picture, and which of them are its caption.

    Attributes
    ----------
    rows
        The caption's rows, as indices of boxes; none where there is no caption.
    boxes, crops, matrices
        Each text's box, its pixels (upright, BGR) and what the recogniser made of them, shape (T, classes).
    offset
        Where the picture's left top corner stands in what was searched, in pixels, and at what scale.
    """

    rows: list[list[int]]
    boxes: list[TextBox]
    crops: list[npt.NDArray[np.uint8]]
    matrices: list[npt.NDArray[np.float32]]
    offset: tuple[int, int, float]

    def parts(self) -> Iterator[tuple[int, str]]:
        """Give the caption's boxes in reading order, each with what joins it to the one before."""
        for row in self.rows:
            for place, i in enumerate(row):
                yield i, " " if place else "\n"


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
        self._alphabet = Alphabet(self._reader.postprocess_op.character)

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

    def find_parts_batch(self, images: Sequence[Image.Image]) -> list[list[Part]]:
        """Cut out the parts of each picture's caption, for a reader of single lines.

        Parameters
        ----------
        images
            Frames of any size, or strips cut out around a caption, RGB.

        Returns
        -------
        list of list of Part
            The caption's rows from top to bottom, and what stands apart within a row from left to right: each
            upright, with `SIDE_MARGIN` at its ends. Empty where there is no caption.
        """
        return [self._find_parts(image) for image in images]

    def _find_parts(self, image: Image.Image) -> list[Part]:
        found = self._find(image)
        return [Part(Image.fromarray(found.crops[i][:, :, ::-1]), separator) for i, separator in found.parts()]

    def _find_band(self, image: Image.Image) -> tuple[int, int, int, int] | None:
        found = self._find(image)
        if not found.rows:
            return None
        if is_strip(image):
            return (0, 0, *image.size)
        across, down, scale = found.offset
        chosen = [found.boxes[i] for i, _ in found.parts()]
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
        found = self._find(image)
        return tuple(_Part(*self._alphabet.fold(found.matrices[i]), separator) for i, separator in found.parts())

    def _find(self, image: Image.Image) -> _Located:
        strip = is_strip(image)
        padded, offset = _pad(image, strip)
        likely = [box for box in self._detect(padded) if could_be_caption(box, padded.size, strip=strip)]
        pixels = np.ascontiguousarray(np.asarray(padded)[:, :, ::-1])
        bare = join_neighbours(likely)
        crops = [_crop(pixels, box) for box in bare]
        matrices = [self._matrix(crop) for crop in crops]
        boxes = [self._with_reading(*read) for read in zip(bare, crops, matrices, strict=True)]
        return _Located(caption_rows(boxes, padded.size, strip=strip), boxes, crops, matrices, offset)

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
        readings = [self._part_readings(part, n_best) for part in parts]
        joined = combine(readings, [part.separator for part in parts], n_best, lambda text: "".join(text.split()))
        texts = [hypothesis.text for hypothesis in joined]
        scored = map(Hypothesis, texts, self._scores(parts, texts))
        return sorted(scored, key=lambda hypothesis: (-hypothesis.logprob, hypothesis.text))

    def _part_readings(self, part: _Part, n_best: int) -> list[Hypothesis]:
        """Give a part's best texts, distinct beyond white space."""
        width = max(self.beam_width, n_best)
        readings: dict[Labels, Hypothesis] = {}
        for labels, logprob in prefix_beam_search(part.logprobs, _BLANK, width, width, TOP_CLASSES):
            spelt = "".join(self._alphabet.characters[part.spelling[label]] for label in labels)
            readings.setdefault(self._alphabet.letters(labels), Hypothesis(" ".join(spelt.split()), logprob))
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


def is_strip(image: Image.Image) -> bool:
    """Tell whether a picture was cut out around a caption; see `STRIP_RATIO`."""
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
