"""The choice of the caption on layouts measured on real frames, and by its laws."""

from __future__ import annotations

import itertools

import pytest

from caprag.recognition.layout import MAX_PARTS, MAX_ROWS, TextBox, caption_rows, could_be_caption, join_neighbours

FRAME = (1280, 720)


def box(
    middle_x: float,
    middle_y: float,
    height: float,
    width: float,
    text: str = "我已经厌倦了",
    confidence: float = 0.99,
    contrast: float = 250.0,
    rise: float = 0.0,
) -> TextBox:
    """A box by shares of a 1280 x 720 frame; rise in pixels."""
    left, right = (middle_x - width / 2) * FRAME[0], (middle_x + width / 2) * FRAME[0]
    top, bottom = (middle_y - height / 2) * FRAME[1], (middle_y + height / 2) * FRAME[1]
    low, high = -rise / 2, rise / 2
    return TextBox(
        ((left, top + low), (right, top + high), (right, bottom + high), (left, bottom + low)),
        text,
        confidence,
        contrast,
    )


# As RapidOCR finds them in stills of a drama: the channel's logo in two boxes, and the caption.
ASTRO = box(0.858, 0.109, 0.043, 0.063, "astro", 1.0, 196)
DOUBLE_STAR = box(0.857, 0.159, 0.051, 0.050, "双星", 1.0, 180)
CAPTION = box(0.499, 0.907, 0.083, 0.233)


def test_caption_among_logos() -> None:
    assert caption_rows([ASTRO, DOUBLE_STAR, CAPTION], FRAME) == [[2]]
    assert caption_rows([ASTRO, DOUBLE_STAR], FRAME) == []
    assert caption_rows([], FRAME) == []


@pytest.mark.parametrize(
    "bystander",
    [
        box(0.774, 0.903, 0.134, 0.200, "DEVIL", 0.945, 200),  # a jersey beside the caption
        box(0.230, 0.931, 0.056, 0.112, "SINISCHOOLN", 0.624, 150),  # a bag
        box(0.679, 0.610, 0.046, 0.088, "万福肉专卖", 1.0, 110),  # a shop
        box(0.509, 0.706, 0.051, 0.105, "IA·91586", 0.968, 20),  # a number plate
        box(0.425, 0.463, 0.051, 0.132, "第试通过，明早十点面试。", 0.926, 82),  # a telephone's screen
        box(0.110, 0.281, 0.128, 0.221, "lyfish show", 1.0, 116),  # a poster
        box(0.915, 0.887, 0.049, 0.055, "HD", 1.0, 200),  # a camera's finder
        box(0.121, 0.108, 0.075, 0.080, "REC", 1.0, 146),
    ],
)
def test_bystanders_are_left_out(bystander: TextBox) -> None:
    assert caption_rows([bystander, CAPTION], FRAME) == [[1]]
    assert caption_rows([bystander], FRAME) == []


def test_two_stacked_rows_from_top_to_bottom() -> None:
    upper, lower = box(0.5, 0.83, 0.08, 0.4, "第一行字幕"), box(0.5, 0.92, 0.08, 0.3, "第二行")
    assert caption_rows([lower, ASTRO, upper], FRAME) == [[2], [0]]


def test_rows_flush_left_are_one_caption() -> None:
    upper, lower = box(0.45, 0.83, 0.08, 0.4, "第一行字幕"), box(0.4, 0.92, 0.08, 0.3, "第二行")
    assert caption_rows([upper, lower], FRAME) == [[0], [1]]


def test_two_speakers_side_by_side_from_left_to_right() -> None:
    # A still of a film: two speakers answer each other in one row, far apart.
    left, right = box(0.35, 0.92, 0.085, 0.12, "麥嘜同學！"), box(0.68, 0.92, 0.085, 0.06, "到！")
    assert caption_rows([right, left], FRAME) == [[1, 0]]


def test_a_caption_in_three_boxes_keeps_its_ends() -> None:
    boxes = [box(x, 0.92, 0.08, 0.15, "三字詞") for x in (0.7, 0.3, 0.5)]
    assert caption_rows(boxes, FRAME) == [[1, 2, 0]]


def test_a_second_language_is_left_out() -> None:
    chinese = box(0.5, 0.85, 0.075, 0.3, "不要再說了")
    english = box(0.5, 0.93, 0.065, 0.4, "Don't say any more")
    assert caption_rows([chinese, english], FRAME) == [[0]]
    assert caption_rows([english, chinese], FRAME) == [[1]]
    assert caption_rows([english], FRAME) == [[0]]


def test_a_list_of_names_is_no_caption() -> None:
    names = [box(0.5, 0.70 + 0.07 * i, 0.06, 0.2, f"职员姓名{i}") for i in range(MAX_ROWS + 1)]
    assert caption_rows(names, FRAME) == []
    assert caption_rows(names[-MAX_ROWS:], FRAME) == [[0], [1], [2]]


@pytest.mark.parametrize(
    "other",
    [
        box(0.5, 0.92, 0.08, 0.3, confidence=0.4),
        box(0.5, 0.92, 0.08, 0.3, contrast=40),
        box(0.5, 0.92, 0.08, 0.3, rise=40),
        box(0.5, 0.92, 0.02, 0.3),
        box(0.5, 0.85, 0.28, 0.3),
        box(0.5, 0.45, 0.08, 0.3),
        box(0.8, 0.92, 0.08, 0.3),
        box(0.5, 0.92, 0.08, 0.3, text="  "),
    ],
    ids=["doubtful", "faint", "tilted", "tiny", "huge", "mid-picture", "right", "blank"],
)
def test_what_is_unlike_a_caption_is_none(other: TextBox) -> None:
    assert caption_rows([other], FRAME) == []


def test_captions_at_the_top_and_flush_left_count() -> None:
    assert caption_rows([box(0.5, 0.08, 0.08, 0.3)], FRAME) == [[0]]
    assert caption_rows([box(0.25, 0.92, 0.08, 0.3)], FRAME) == [[0]]


def test_in_a_strip_place_and_height_say_nothing() -> None:
    strip = (700, 100)
    caption = TextBox(((5, 5), (695, 5), (695, 95), (5, 95)), "不可以", 0.99, 250)
    assert caption_rows([caption], strip) == []
    assert caption_rows([caption], strip, strip=True) == [[0]]


def test_order_of_boxes_changes_nothing() -> None:
    boxes = [
        ASTRO,
        DOUBLE_STAR,
        box(0.5, 0.83, 0.08, 0.4, "第一行"),
        box(0.38, 0.92, 0.08, 0.1, "甲"),
        box(0.62, 0.92, 0.08, 0.1, "乙"),
    ]
    expected = [[boxes[i] for i in row] for row in caption_rows(boxes, FRAME)]
    assert [[part.text for part in row] for row in expected] == [["第一行"], ["甲", "乙"]]
    for order in itertools.permutations(boxes):
        assert [[order[i] for i in row] for row in caption_rows(order, FRAME)] == expected


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_size_of_the_picture_changes_nothing(scale: float) -> None:
    boxes = [ASTRO, CAPTION, box(0.5, 0.82, 0.08, 0.3)]
    scaled = []
    for part in boxes:
        one, two, three, four = ((x * scale, y * scale) for x, y in part.quad)
        scaled.append(TextBox((one, two, three, four), part.text, part.confidence, part.contrast))
    size = (round(FRAME[0] * scale), round(FRAME[1] * scale))
    assert caption_rows(scaled, size) == caption_rows(boxes, FRAME) == [[2], [1]]


def test_what_is_chosen_could_be_a_caption() -> None:
    for part in (CAPTION, box(0.5, 0.08, 0.08, 0.3), box(0.25, 0.92, 0.08, 0.3)):
        assert could_be_caption(part, FRAME)
    for part in (box(0.5, 0.5, 1.0, 1.0), box(0.5, 0.5, 0.08, 0.3), box(0.5, 0.9, 0.2, 0.02)):
        assert not could_be_caption(part, FRAME)


def test_degenerate_boxes_and_sizes() -> None:
    point = TextBox(((640, 650),) * 4, "字")
    assert not could_be_caption(point, FRAME)
    assert caption_rows([point], FRAME) == []
    with pytest.raises(ValueError, match="size"):
        caption_rows([CAPTION], (0, 720))


def test_pieces_of_one_line_are_joined() -> None:
    # As found in a caption cut out of a film: the detector widens both halves until they overlap.
    left = TextBox(((0, 127), (246, 127), (246, 218), (0, 218)))
    right = TextBox(((198, 126), (612, 126), (612, 220), (198, 220)))
    (joined,) = join_neighbours([right, left])
    assert joined.quad == ((0, 126), (612, 126), (612, 220), (0, 220))
    assert join_neighbours([joined]) == [joined]
    assert join_neighbours([]) == []
    line, dots = (
        TextBox(((0, 304), (1173, 304), (1173, 390), (0, 390))),
        TextBox(((1162, 327), (1232, 327), (1232, 370), (1162, 370))),
    )
    assert [part.right for part in join_neighbours([line, dots])] == [1232]


def test_doubtful_readings_beside_the_caption_are_left_out() -> None:
    noise = box(0.68, 0.907, 0.06, 0.03, "H", 0.6)
    assert caption_rows([noise, CAPTION], FRAME) == [[1]]


def test_other_texts_are_not_joined() -> None:
    apart = [box(0.35, 0.92, 0.085, 0.12), box(0.68, 0.92, 0.085, 0.06)]
    rows = [box(0.5, 0.83, 0.08, 0.4), box(0.5, 0.92, 0.08, 0.3)]
    jersey = [CAPTION, box(0.68, 0.903, 0.134, 0.200)]
    # A short caption beside something tall that was taken for type, in a strip cut out of a drama.
    tall = TextBox(((121, 363), (665, 359), (667, 500), (123, 504)))
    short = TextBox(((687, 392), (843, 392), (843, 469), (687, 469)))
    for boxes in (apart, rows, jersey, [tall, short]):
        assert sorted(join_neighbours(boxes), key=lambda part: part.quad) == sorted(boxes, key=lambda part: part.quad)


def test_many_boxes_on_a_line_are_soon_done() -> None:
    """A ticker of two hundred words is no caption, and no reason to hang."""
    boxes = [
        TextBox(((60 * i, 640), (60 * i + 40, 640), (60 * i + 40, 680), (60 * i, 680)), "字", 0.99) for i in range(200)
    ]
    assert all(len(row) <= MAX_PARTS for row in caption_rows(boxes, (12000, 720)))
