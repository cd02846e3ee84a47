"""The error tree as its docstring draws it, and the install line of what is not there."""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path

import pytest

from caprag import errors
from caprag.errors import CapragError, MissingDependencyError, require


def test_the_tree_is_the_drawn_one() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    classes = {n: c for n, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__}
    assert drawn == classes.keys() - {"CapragError"}
    assert all(issubclass(c, CapragError) for c in classes.values())
    assert issubclass(MissingDependencyError, ImportError)


def test_require_gives_the_module() -> None:
    assert require("json", "train") is json


def test_require_names_the_install_line() -> None:
    with pytest.raises(MissingDependencyError, match=re.escape("pip install 'caprag[train]'")) as caught:
        require("no_such_package.inner", "train")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_require_lets_a_package_s_own_failure_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed_package.py").write_text("import no_such_package\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_package") as caught:
        require("half_installed_package", "train")
    assert not isinstance(caught.value, MissingDependencyError)
    assert "half_installed_package" not in sys.modules
