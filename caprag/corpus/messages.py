"""The texts in one cell of a table: a string, a list of strings, or the messages of a chat.

Knows the two ways in which chat data sets are written, OpenAI's (``messages`` of ``role`` and ``content``) and
ShareGPT's (``conversations`` of ``from`` and ``value``); knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

_ROLE_KEYS = ("role", "from")
_CONTENT_KEYS = ("content", "value")
# ShareGPT's names, and what a few other sets call the same two.
_SAME_ROLE = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}


def texts_of(value: object, roles: Collection[str] | None = None) -> Iterator[str]:
    """Yield the texts in a cell.

    Parameters
    ----------
    value
        A string; a message; a content part (``{"type": "text", "text": ...}``; parts of other types hold no text);
        a list of any of these; or ``None``, which holds no text.
    roles
        The roles whose messages are taken; ``human`` is ``user``, and ``gpt`` is ``assistant``. ``None`` takes every
        message. What is no message is always taken.

    Raises
    ------
    ValueError
        Where there is something else, naming what.

    Examples
    --------
    >>> chat = [{"role": "user", "content": "在嗎"}, {"role": "assistant", "content": [{"type": "text", "text": "在"}]}]
    >>> list(texts_of(chat, ["assistant"]))
    ['在']
    """
    wanted = None if roles is None else {_role(role) for role in roles}
    # A stack of its own: JSON may be nested deeper than Python may call.
    waiting: list[object] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            waiting += reversed(item)
        elif isinstance(item, dict):
            waiting.append(_inner(item, wanted))
        elif item is not None:
            raise ValueError(f"the text is a {type(item).__name__}; a string or messages are wanted")


def _inner(item: dict[str, object], wanted: set[str] | None) -> object:
    """Return what a message or part holds; None for one that is not wanted or holds no text."""
    role = next((item[key] for key in _ROLE_KEYS if isinstance(item.get(key), str)), None)
    if role is not None:
        if wanted is not None and _role(str(role)) not in wanted:
            return None
        for key in _CONTENT_KEYS:
            if key in item:
                return item[key]
    elif "text" in item:
        return item["text"]
    elif "type" in item:
        return None
    raise ValueError(f"an object of {', '.join(item) or 'nothing'} is no message; role and content are wanted")


def _role(name: str) -> str:
    name = name.strip().lower()
    return _SAME_ROLE.get(name, name)
