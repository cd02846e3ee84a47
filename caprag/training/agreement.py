"""What several answers to the same picture are worth: refusals found, disagreement measured, one answer chosen.

Knows neither pictures nor models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from caprag.text import match_form, normalize

_THOUGHT = re.compile(r"\s*<think>.*?(</think>|\Z)", re.DOTALL)
# In the matching form: lower case, Simplified characters, neither spaces nor signs. Each names the picture, its text or
# the asking, for a caption may well say "I'm sorry, I can't", and 抱歉，我不能.
_REFUSAL = re.compile(
    r"(im|iam)(very|so)?(sorry|afraid)(but)?i(cant|cannot|amunable|munable|amnotable|mnotable)\w*"
    r"(image|picture|photo|text|caption|subtitle|assistwith|helpwith)"
    r"|i(cant|cannot|amunableto|munableto)(see|read|view|identify|extract|transcribe|describe|process|access)\w*"
    r"(image|picture|photo|text|caption|subtitle)"
    r"|asana?i(language)?(model|assistant)"
    r"|there(is|are)no(visible|readable|legible)?(text|caption|subtitle)"
    r"|the(image|picture|photo|frame)(doesnot|doesnt|contains|has|shows)(contain|have|show)?(no|any)\w*"
    r"(text|caption|subtitle)"
    r"|作为一?[个名]?(ai|人工智能|语言模型)"
    r"|[很非常]*(抱歉|对不起|不好意思)\w{0,10}(无法|不能|没办法)\w{0,16}(图|照片|画面|影像|字幕|文字|请求)"
    r"|我?(无法|不能)(识别|辨识|辨认|读取|看到|查看|提供)\w{0,16}(图|照片|画面|影像|字幕|文字)"
    r"|[这该此张]*(图|画面|照片|影像)\w{0,8}(没有|无|不包含|未包含|看不到)(任何|可见的?|明显的?)?(字幕|文字|文本)"
    r"|(没有|无)(任何|可见的?|明显的?)?(字幕|文字)(\Z|可)",
)


def spoken(answer: str) -> str:
    """Return an answer without the thoughts that some models write before it, and without outer white space.

    Examples
    --------
    >>> spoken("<think>The caption is ...</think>\\n\\n午餐吃什麼 "), spoken("<think>cut off amid")
    ('午餐吃什麼', '')
    """
    return _THOUGHT.sub("", answer, count=1).strip() if answer.lstrip().startswith("<think>") else answer.strip()


def is_refusal(answer: str) -> bool:
    """Say whether an answer tells that there is none, instead of giving one.

    Examples
    --------
    >>> is_refusal("抱歉，我無法識別圖片中的文字。"), is_refusal("There is no visible text in the image.")
    (True, True)
    >>> is_refusal("抱歉，我不能陪你去"), is_refusal("I'm sorry, I can't stay")
    (False, False)
    """
    return _REFUSAL.match(match_form(answer)) is not None


def disagreement(a: str, b: str) -> float:
    """Return the edits between two texts over the length of the longer, in the matching form.

    Returns
    -------
    float
        In [0, 1]; 0 for equal forms, also where both have no letter. It is the character error rate with the longer
        text as the reference, and the same either way.

    Examples
    --------
    >>> disagreement("午餐吃什麼?", "午餐吃什么"), disagreement("午餐吃什麼", "晚餐吃什麼")
    (0.0, 0.2)
    """
    return float(Levenshtein.normalized_distance(match_form(a), match_form(b)))


def choose(answers: Sequence[str], limit: float) -> int | None:
    """Choose the answer that the others are nearest to, where all agree.

    Parameters
    ----------
    answers
        Of one picture, at least one.
    limit
        The most that any two may disagree, in [0, 1].

    Returns
    -------
    int or None
        Place of the medoid: the least sum of disagreements, then of edits in the written form (signs count there),
        then the first. ``None`` where two disagree.

    Examples
    --------
    >>> choose(["午餐吃什么", "午餐吃什麼?", "午餐吃什麼"], 0.1), choose(["午餐吃什麼", "晚餐吃什麼"], 0.1)
    (2, None)
    """
    table = [[disagreement(a, b) for b in answers] for a in answers]
    if max(map(max, table)) > limit:
        return None
    written = [normalize(answer) for answer in answers]
    edits = [sum(Levenshtein.distance(a, b) for b in written) for a in written]
    return min(range(len(answers)), key=lambda place: (sum(table[place]), edits[place], place))
