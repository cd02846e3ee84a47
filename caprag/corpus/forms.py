"""The form in which two pieces of a corpus are equal: their matching form, and the marks that change what it says.

3.5 is not 35, 12:30 not 1230, -5 not 5, and a+b not a-b, though their letters and digits are equal. Knows which marks
stand where, not arithmetic: 3.50 is not 3.5.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from caprag.text import match_form, match_forms

_LATIN = "0-9A-Za-z\u00c0-\u024f\u0370-\u04ff"
_SIGN = re.compile(
    # Within a number or between two, except the comma of thousands.
    r"(?<=\d) ?(?!,\d{3}(?!\d))[^\w\s] ?(?=\d)|(?<=\d) (?=\d)"
    # Before a number: a sign, a currency, a point that begins it.
    r"|[-+±−$€£¥](?=\d)|(?<![^\s])\.(?=\d)"
    # After it.
    r"|(?<=\d)[%‰°]"
    # Operators: some say little between words that are not Latin.
    rf"|(?<=[{_LATIN}]) ?[-−/*~&|^] ?(?=[{_LATIN}])|(?<=[A-Za-z])[+#]+|(?<=\w) ?[+=<>×÷±≤≥≠] ?(?=\w)"
)
_SAME = str.maketrans("−×÷、", "-*/,")


def duplicate_forms(texts: Sequence[str]) -> list[str]:
    """Return the form of each text in which equal ones are duplicates.

    Parameters
    ----------
    texts
        In their written form, none empty.

    Returns
    -------
    list of str
        `caprag.text.match_form` of each, with the points, colons and signs of numbers and the operators between
        letters or digits in their places.

    Examples
    --------
    >>> duplicate_forms(["價格3.5元!", "價格35元", "a + b", "A+B?", "你好,再見", "1,000元"])
    ['价格3.5元', '价格35元', 'a+b', 'a+b', '你好再见', '1000元']
    """
    forms = match_forms(texts)
    for place, text in enumerate(texts):
        if found := list(_SIGN.finditer(text)):
            parts, start = [], 0
            for match in found:
                # A space between two numbers stays one.
                parts += [match_form(text[start : match.start()]), match.group().strip().translate(_SAME) or " "]
                start = match.end()
            forms[place] = "".join([*parts, match_form(text[start:])])
    return forms
