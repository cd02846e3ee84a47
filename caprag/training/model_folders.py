"""A model's folder that is whole or not there.

Knows nothing of what is in it.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from caprag.errors import ModelError


@contextmanager
def new_folder(out: str | PathLike[str]) -> Iterator[Path]:
    """Make a folder that gets its name when the block ends well, and goes away when it does not.

    Parameters
    ----------
    out
        The name; nothing, or an empty folder, may be there.

    Yields
    ------
    pathlib.Path
        An empty folder beside it, to be written into.

    Raises
    ------
    ModelError
        Where something is there already, or the folder can't be made.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp(), "model")
    >>> with new_folder(place) as folder:
    ...     (folder / "config.json").touch()
    ...     place.exists()
    False
    >>> [path.name for path in place.iterdir()]
    ['config.json']
    """
    place = Path(out)
    beside = place.with_name(f".{place.name}-{secrets.token_hex(4)}.new")
    try:
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise ModelError(f"{place}: is there already, and not empty; choose another folder, or remove it")
        beside.mkdir(parents=True)
    except OSError as error:
        raise ModelError(f"{place}: can't be made ({error.strerror or error}); choose another folder") from error
    try:
        yield beside
        beside.rename(place)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
