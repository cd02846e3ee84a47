"""Which of the texts in a picture is the caption.

A pure function of boxes, readings and contrast. Each row of boxes gets a cost: how far it is from what
captions are - upright type of a middling height, in the lower part of the picture (or at its very top),
centred, read with confidence, light on a dark outline or the other way round. The cheapest row is the caption
if its cost is at most `LIMIT`; rows like it directly above or below belong to it. Knows nothing of
programmes, logos or languages, except that a row without Han characters beside one with them is a second
language.

The constants were set by what captions are and checked on 276 frames of three programmes, the upper three
quarters of the same frames, and 38 photographs: captions cost at most 1.9, and the cheapest other boxes 3.4
(a glint read as a letter), 4.3 (print on clothes), 4.8 (a number plate) and 5.1 (a camera's finder).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LIMIT = 3.0
"""A row that costs more is not a caption."""

LOWER_BAND = 0.7
"""Where the lower part begins, as a share of the height from the top; no cost from here on."""

UPPER_BAND, UPPER_COST, MIDDLE_COST = 0.2, 1.5, 4.5
"""Where the top ends, the cost of standing there, and the cost of standing between top and lower part."""

CENTRE_SPREAD = 0.05
"""Distance of a row's middle from the picture's, as a share of the width, that costs 1/2; the cost is
quadratic."""

LEFT_EDGES, LEFT_COST = (0.04, 0.35), 2.5
"""A row that begins here, as a share of the width, may be set flush left, which costs so much instead."""

HEIGHTS, HEIGHT_SPREAD = (0.05, 0.12), 0.2
"""Usual heights of a box, as a share of the picture's height (type is about 3/4 of its box), and the natural
logarithm of a factor outside them that costs 1/2."""

TILT_SPREAD = 0.15
"""Rise from the left to the right end, in heights of the box, that costs 1/2."""

DOUBT_COST = 6.0
"""Cost of a confidence of 0; linear to no cost at 1."""

CONTRAST, CONTRAST_SPREAD = 180.0, 30.0
"""Contrast from which on there is no cost, and how far below it costs 1 (levels of 255)."""

SINGLE_COST = 1.0
"""Cost of a row of one character: most false readings are."""

PART_GAIN = 0.5
"""What each further box in a row takes off its cost, so that a caption in three parts wins over its middle
one."""

MAX_PARTS = 6
"""Boxes of a row; more side by side are a table or a ticker."""

MAX_ROWS = 3
"""Rows of a caption; a taller stack of like rows is a list of names, a page or a screen."""

ROW_OFFSET, ROW_HEIGHTS, ROW_GAP = 0.3, (0.35, 1.4), 0.45
"""Boxes share a row when their middles differ by at most so many heights, their heights are in this
proportion, and the gap between them is at most this share of the picture's width."""

STACK_PITCH, STACK_HEIGHTS, STACK_SHIFT = (0.7, 1.9), (0.75, 1.33), 0.04
"""Rows belong together when their middles are so many heights apart, their heights are in this proportion,
and their middles or left ends differ by at most this share of the picture's width."""

JOIN_GAP, JOIN_HEIGHTS, JOIN_WIDTH = 0.5, 0.7, 1.1
"""Boxes of a row are one line of type when the gap between them is at most so many heights (it may be negative:
detectors widen what they find), and the lower one has at least this share of the other's height or is at most
so many of the other's heights wide: about a character, such as dots at the end."""

PART_CONFIDENCE = 0.7
"""Least confidence of a box that stands beside another."""

LIKE_CONTRAST = 0.6
"""Boxes and rows belong together when the weaker contrast is at least this share of the stronger."""


Quad = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
"""Corners (x, y) in pixels: top left, top right, bottom right, bottom left."""


@dataclass(frozen=True, slots=True)
class TextBox:
    """A text that was found in a picture.

    Attributes
    ----------
    quad
        Corners (x, y) in pixels: top left, top right, bottom right, bottom left.
    text
        What was read; may be empty.
    confidence
        Mean probability of the characters read, in [0, 1].
    contrast
        Difference between the lightest and the darkest part of the box, in [0, 255].
    """

    quad: Quad
    text: str = ""
    confidence: float = 1.0
    contrast: float = 255.0

    @property
    def height(self) -> float:
        """Mean length of the left and the right side, in pixels, >= 0."""
        top_left, top_right, bottom_right, bottom_left = self.quad
        return (math.dist(top_left, bottom_left) + math.dist(top_right, bottom_right)) / 2

    @property
    def left(self) -> float:
        """Smallest x, in pixels."""
        return min(x for x, _ in self.quad)

    @property
    def right(self) -> float:
        """Largest x, in pixels."""
        return max(x for x, _ in self.quad)

    @property
    def middle(self) -> float:
        """Mean y, in pixels."""
        return sum(y for _, y in self.quad) / 4

    @property
    def rise(self) -> float:
        """How much lower the right end is than the left, in pixels; negative where it is higher."""
        top_left, top_right, bottom_right, bottom_left = self.quad
        return (top_right[1] - top_left[1] + bottom_right[1] - bottom_left[1]) / 2


@dataclass(frozen=True, slots=True)
class _Row:
    """Boxes side by side, left to right, with the figures that are compared."""

    members: tuple[int, ...]
    left: float
    right: float
    middle: float
    height: float
    contrast: float
    has_han: bool
    cost: float


def could_be_caption(box: TextBox, size: tuple[int, int], *, strip: bool = False) -> bool:
    """Tell by place and shape alone whether a box may be part of a caption, so that only such need reading.

    Parameters
    ----------
    box
        The box; its text, confidence and contrast are not looked at.
    size
        Width and height of the picture, in pixels.
    strip
        Whether the picture was cut out around a caption, so that place and height in it say nothing.

    Returns
    -------
    bool
        ``False`` only where `caption_rows` could not choose it whatever it says.

    Examples
    --------
    >>> could_be_caption(TextBox(((100, 620), (400, 620), (400, 680), (100, 680))), (1280, 720))
    True
    >>> could_be_caption(TextBox(((0, 0), (1280, 0), (1280, 720), (0, 720))), (1280, 720))
    False
    """
    if box.height <= 0 or box.right - box.left < box.height / 2:
        return False
    cost = _tilt_cost(box.rise, box.height)
    if not strip:
        # A small part, such as a dot or a dash, has its row's height from the others.
        cost += _place_cost(box.middle / size[1]) + _height_cost(box.height / size[1] / ROW_HEIGHTS[0], upper=False)
        cost += _height_cost(box.height / size[1], lower=False)
    return cost <= LIMIT


def join_neighbours(boxes: Sequence[TextBox]) -> list[TextBox]:
    """Join boxes that are pieces of one line of type, so that it is read in one go.

    Parameters
    ----------
    boxes
        Boxes by place and shape alone; their texts, confidences and contrasts are lost where they are joined.

    Returns
    -------
    list of TextBox
        Joined boxes are upright; the others are as given. From left to right by their left ends.

    Examples
    --------
    >>> left = TextBox(((100, 620), (300, 620), (300, 680), (100, 680)))
    >>> right = TextBox(((290, 622), (400, 622), (400, 682), (290, 682)))
    >>> [(box.left, box.right) for box in join_neighbours([right, left])]
    [(100, 400)]
    """
    joined: list[TextBox] = []
    for box in sorted(boxes, key=lambda box: (box.left, box.quad)):
        for i, before in enumerate(joined):
            if _touches(before, box):
                corners = before.quad + box.quad
                left, right = min(before.left, box.left), max(before.right, box.right)
                top, bottom = min(y for _, y in corners), max(y for _, y in corners)
                joined[i] = TextBox(((left, top), (right, top), (right, bottom), (left, bottom)))
                break
        else:
            joined.append(box)
    return joined


def caption_rows(boxes: Sequence[TextBox], size: tuple[int, int], *, strip: bool = False) -> list[list[int]]:
    """Choose the caption among the texts in a picture.

    Parameters
    ----------
    boxes
        All texts found, in any order.
    size
        Width and height of the picture, in pixels, > 0.
    strip
        Whether the picture was cut out around a caption, so that place and height in it say nothing.

    Returns
    -------
    list of list of int
        The caption's rows from top to bottom, each the indices of its boxes from left to right. Empty where
        there is no caption.

    Raises
    ------
    ValueError
        Where a side of `size` is not positive.

    Examples
    --------
    >>> logo = TextBox(((1060, 60), (1140, 60), (1140, 95), (1060, 95)), "astro")
    >>> caption = TextBox(((490, 620), (790, 620), (790, 680), (490, 680)), "我已经厌倦了")
    >>> caption_rows([logo, caption], (1280, 720))
    [[1]]
    >>> caption_rows([logo], (1280, 720))
    []
    """
    if min(size) <= 0:
        raise ValueError(f"size must be positive, got {size}")
    free = {i for i, box in enumerate(boxes) if box.text.strip() and could_be_caption(box, size, strip=strip)}
    while free:
        rows = [_best_row(boxes, seed, free, size, strip) for seed in sorted(free)]
        best = min(rows, key=lambda row: (row.cost, row.left - row.right, row.members))
        if best.cost > LIMIT:
            break
        stack = _stack(best, rows, size)
        if len(stack) <= MAX_ROWS:
            return [list(row.members) for row in stack]
        free -= {member for row in stack for member in row.members}
    return []


def _best_row(boxes: Sequence[TextBox], seed: int, free: set[int], size: tuple[int, int], strip: bool) -> _Row:
    """Find the cheapest run of neighbours that holds the seed and nothing much taller."""
    beside = sorted((i for i in free if i == seed or _beside(boxes[seed], boxes[i])), key=lambda i: (boxes[i].left, i))
    place = beside.index(seed)
    first = last = place
    widest = math.inf if strip else ROW_GAP * size[0]
    while first > 0 and _gap(boxes, beside[first - 1], beside[first]) <= widest:
        first -= 1
    while last + 1 < len(beside) and _gap(boxes, beside[last], beside[last + 1]) <= widest:
        last += 1
    runs = (
        tuple(beside[start : stop + 1])
        for start in range(max(first, place + 1 - MAX_PARTS), place + 1)
        for stop in range(place, min(last + 1, start + MAX_PARTS))
    )
    return min((_row(boxes, run, size, strip) for run in runs), key=lambda row: (row.cost, row.members))


def _gap(boxes: Sequence[TextBox], one: int, other: int) -> float:
    return boxes[other].left - boxes[one].right


def _touches(left: TextBox, right: TextBox) -> bool:
    low, high = sorted((left, right), key=lambda box: box.height)
    return (
        high.height > 0
        and abs(low.middle - high.middle) <= ROW_OFFSET * high.height
        and (low.height >= JOIN_HEIGHTS * high.height or low.right - low.left <= JOIN_WIDTH * high.height)
        and right.left - left.right <= JOIN_GAP * high.height
        and max(abs(left.rise), abs(right.rise)) <= ROW_OFFSET * high.height
    )


def _beside(seed: TextBox, box: TextBox) -> bool:
    shared = min(seed.right, box.right) - max(seed.left, box.left)
    return (
        abs(box.middle - seed.middle) <= ROW_OFFSET * seed.height
        and ROW_HEIGHTS[0] * seed.height <= box.height <= ROW_HEIGHTS[1] * seed.height
        and shared <= min(seed.height, box.height) / 2
        and _alike(seed.contrast, box.contrast)
        and min(seed.confidence, box.confidence) >= PART_CONFIDENCE
    )


def _alike(one: float, other: float) -> bool:
    return min(one, other) >= LIKE_CONTRAST * max(one, other)


def _row(boxes: Sequence[TextBox], run: tuple[int, ...], size: tuple[int, int], strip: bool) -> _Row:
    parts = [boxes[i] for i in run]
    texts = ["".join(part.text.split()) for part in parts]
    count = sum(map(len, texts))
    left, right = min(part.left for part in parts), max(part.right for part in parts)
    height = max(part.height for part in parts)
    middle = sum(part.middle for part in parts) / len(parts)
    confidence = sum(part.confidence * len(text) for part, text in zip(parts, texts, strict=True)) / count
    contrast = min(part.contrast for part in parts)
    cost = DOUBT_COST * (1 - confidence) + max(0.0, CONTRAST - contrast) / CONTRAST_SPREAD
    cost += max(_tilt_cost(part.rise, part.height) for part in parts)
    cost += (SINGLE_COST if count == 1 else 0.0) - PART_GAIN * (len(parts) - 1)
    if not strip:
        cost += _place_cost(middle / size[1]) + _height_cost(height / size[1])
        cost += _alignment_cost(left / size[0], right / size[0])
    has_han = any(_is_han(character) for text in texts for character in text)
    return _Row(run, left, right, middle, height, contrast, has_han, cost)


def _place_cost(middle: float) -> float:
    if middle >= LOWER_BAND:
        return 0.0
    return UPPER_COST if middle <= UPPER_BAND else MIDDLE_COST


def _height_cost(height: float, *, lower: bool = True, upper: bool = True) -> float:
    if lower and height < HEIGHTS[0]:
        return (math.log(height / HEIGHTS[0]) / HEIGHT_SPREAD) ** 2 / 2
    if upper and height > HEIGHTS[1]:
        return (math.log(height / HEIGHTS[1]) / HEIGHT_SPREAD) ** 2 / 2
    return 0.0


def _tilt_cost(rise: float, height: float) -> float:
    return (rise / height / TILT_SPREAD) ** 2 / 2


def _alignment_cost(left: float, right: float) -> float:
    off_centre = (((left + right) / 2 - 0.5) / CENTRE_SPREAD) ** 2 / 2
    return min(off_centre, LEFT_COST) if LEFT_EDGES[0] <= left <= LEFT_EDGES[1] else off_centre


def _stack(best: _Row, rows: Sequence[_Row], size: tuple[int, int]) -> list[_Row]:
    """Gather the rows above and below that are set like the best one, from top to bottom."""
    likely = [row for row in rows if row.cost <= LIMIT]
    if not best.has_han:
        best = next((row for row in likely if row.has_han and _is_next(best, row, size)), best)
    stack = [best]
    taken = set(best.members)
    while True:
        following = [
            row
            for row in likely
            if taken.isdisjoint(row.members)
            and row.has_han == best.has_han
            and (_is_next(stack[0], row, size) or _is_next(stack[-1], row, size))
        ]
        if not following:
            return stack
        nearest = min(following, key=lambda row: (abs(row.middle - best.middle), row.cost, row.members))
        taken |= set(nearest.members)
        stack = sorted([*stack, nearest], key=lambda row: row.middle)


def _is_next(row: _Row, other: _Row, size: tuple[int, int]) -> bool:
    shift = min(abs(row.left + row.right - other.left - other.right) / 2, abs(row.left - other.left))
    pitch = abs(row.middle - other.middle) / max(row.height, other.height)
    return (
        STACK_PITCH[0] <= pitch <= STACK_PITCH[1]
        and STACK_HEIGHTS[0] <= other.height / row.height <= STACK_HEIGHTS[1]
        and shift <= STACK_SHIFT * size[0]
        and _alike(row.contrast, other.contrast)
    )


def _is_han(character: str) -> bool:
    return "\u3400" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff" or character >= "\U00020000"
