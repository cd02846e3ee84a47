"""The errors a caller may want to catch; each message names the thing, the place and the remedy.

::

    CapragError
    ├── CorpusError              a text file that can't be read as a corpus
    ├── FontError                a font that can't be read or lacks the text's characters
    ├── FrameError               a picture that can't be read
    ├── IndexFolderError         an index folder that is missing, damaged, foreign or of another embedder
    ├── ModelError               a model that can't be loaded or does not fit its task
    ├── MissingDependencyError   an optional package that is not installed (also an ImportError)
    └── SynthesisError           pictures that can't be made or written as asked

A wrong argument is a `ValueError` or a `TypeError`, as everywhere in Python.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class CapragError(Exception):
    """Base of the errors that caprag raises itself."""


class CorpusError(CapragError):
    """A text file can't be read as a corpus."""


class FontError(CapragError):
    """A font can't be read, or has not the characters of the text."""


class FrameError(CapragError):
    """A picture can't be read."""


class IndexFolderError(CapragError):
    """An index folder is missing, damaged, foreign, or was built with another embedder."""


class ModelError(CapragError):
    """A model can't be loaded, or does not fit the task it was given."""


class SynthesisError(CapragError):
    """Pictures can't be made or written as asked."""


class MissingDependencyError(CapragError, ImportError):
    """An optional package is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional package, or say how to install it.

    Parameters
    ----------
    module
        Name to import, for example ``"sklearn"``.
    extra
        The extra of caprag that brings it, for example ``"train"``.

    Returns
    -------
    module
        The imported package.

    Raises
    ------
    MissingDependencyError
        Where the package is not installed; the message holds the install line.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingDependencyError(
            f"{module} is not installed; it comes with: pip install 'caprag[{extra}]'"
        ) from error
