"""Sets of characters that a corpus may be held to: a legacy encoding's, a file's, or those written out."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

from caprag.corpus.files import decode_lines
from caprag.errors import CorpusError
from caprag.text import normalize

# What a name looks like, so that a slip of the pen is not taken for a set of letters.
_FILE_NAME = re.compile(r"[/\\]|\.\w{1,5}$")


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """A set of characters.

    Attributes
    ----------
    encoding
        A set that is what this encoding can write; empty where `characters` is the set.
    characters
        The characters; white space always belongs to the set.
    """

    encoding: str = ""
    characters: frozenset[str] = frozenset()

    def outside(self, text: str) -> str:
        """Return the first character of a text that is not in the set, or an empty string.

        Examples
        --------
        >>> CharacterSet("big5").outside("裡面 里面发生")
        '发'
        """
        if not self.encoding:
            return next((c for c in text if c not in self.characters and not c.isspace()), "")
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError as error:
            return text[error.start]
        return ""


def character_set(given: str | PathLike[str]) -> CharacterSet:
    """Find the set of characters that a name, a file or a string stands for.

    Parameters
    ----------
    given
        A file, whose characters are the set; else the name of an encoding (``"big5"``, ``"gb2312"``, ``"cp950"``),
        all of whose characters are; else the characters themselves, one of them beyond ASCII, and none of them a slash.

    Returns
    -------
    CharacterSet
        Characters as `caprag.text.normalize` writes them.

    Raises
    ------
    CorpusError
        Where a file can't be read, or the string is none of the three.
    """
    name = fspath(given)
    path = Path(name)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):
        is_file = False  # Too long for a name, or with a character 0: the characters themselves.
    if is_file:
        found: set[str] = set()
        for _, line in decode_lines(path):
            if not isinstance(line, str):
                raise line
            found.update(normalize(line))
        if not found:
            raise CorpusError(f"{path}: holds no character; a set of characters is wanted")
        return CharacterSet(characters=frozenset(found))
    try:
        known = codecs.lookup(name).name
        "一a".encode(known, "ignore")
    except (LookupError, ValueError):
        pass
    else:
        return CharacterSet(encoding=known)
    if isinstance(given, PathLike) or name.isascii() or _FILE_NAME.search(name):
        raise CorpusError(
            f"{name!r} is no set of characters; name a file that holds them, an encoding (for example big5), "
            "or write them out"
        )
    return CharacterSet(characters=frozenset(normalize(name)))
