"""Imports escnn where what it requires for rotations of space alone is missing: lie_learn, py3nj and a Fortran compiler."""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

#: what the guards of this folder are written for, and the tests run with
VERSION = "1.0.11"
INSTALL = f"pip install --no-deps escnn=={VERSION}"
INSTALL_ALL = "pip install 'escnn-attn[escnn]', with numpy < 2, Python < 3.13 and a Fortran compiler"
WIGNER = "lie_learn.representations.SO3.wigner_d"


def import_escnn() -> None:
    """Imports escnn with all its modules, those for the plane in working order.

    Raises:
        ImportError: if escnn is missing or too old, with the command that installs it.
    """
    if find_spec("escnn") is None:
        raise ImportError(f"escnn-attn extends escnn, which is not installed; run: {INSTALL}")
    with warnings.catch_warnings(), _wigner_d():
        warnings.filterwarnings("ignore", "`py3nj` package not found")
        warnings.simplefilter("ignore", SyntaxWarning)  # of escapes in escnn's docstrings
        _import_all()


def _import_all() -> None:
    """An `import escnn` leaves out silently what fails, so each module is imported by name, anew if it failed before."""
    import escnn

    if _numbers(escnn.__version__) < _numbers(VERSION):
        raise ImportError(f"expected escnn {VERSION} or newer, got {escnn.__version__}; run: {INSTALL}")
    if "escnn.nn" not in sys.modules:
        for name in [name for name in sys.modules if name.startswith("escnn.")]:
            del sys.modules[name]
    for name in ("group", "kernels", "gspaces", "nn"):
        setattr(escnn, name, import_module(f"escnn.{name}"))


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


@contextmanager
def _wigner_d() -> Iterator[None]:
    """Where lie_learn cannot be imported, a module in its place whose one function only irreps of SO(3) and O(3) call."""
    if _importable(WIGNER):
        yield
        return
    module = ModuleType(WIGNER)
    module.wigner_D_matrix = _refuse  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules[WIGNER] = module
    try:
        yield
    finally:
        del sys.modules[WIGNER]


def _importable(name: str) -> bool:
    try:
        import_module(name)
    except (ImportError, AttributeError, ValueError):  # the last two by a lie_learn that was compiled for another numpy
        return False
    return True


def _refuse(*_: Any, **__: Any) -> None:
    raise ImportError(f"rotations of space need all that escnn requires, lie_learn among it; run: {INSTALL_ALL}")
