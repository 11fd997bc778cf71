"""docs/api.md lists the public names, each by the path from which it is imported."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import escnn_attn

LISTED = re.findall(r"^::: (\S+)$", (Path(__file__).parents[1] / "docs" / "api.md").read_text(), re.MULTILINE)
PUBLIC = [f"escnn_attn.{name}" for name in escnn_attn.__all__ if not name.startswith("__")]


def unlisted(public: list[str], listed: list[str]) -> list[str]:
    return [name for name in public if name not in listed]


@pytest.mark.parametrize("path", LISTED)
def test_listed_names_are_imported_from_there(path):
    owner, _, name = path.rpartition(".")
    module = importlib.import_module(owner)
    if name in {submodule.name for submodule in pkgutil.iter_modules(module.__path__)}:
        importlib.import_module(path)
    assert hasattr(module, name)


def test_names_are_listed_once():
    assert len(LISTED) == len(set(LISTED))


def test_public_names_are_listed():
    assert unlisted(PUBLIC, LISTED) == []


@pytest.mark.parametrize("package", ["data", "training", "analysis"])
def test_names_of_other_packages_are_listed(package):
    module = importlib.import_module(f"escnn_attn.{package}")
    assert unlisted([f"escnn_attn.{package}.{name}" for name in module.__all__], LISTED) == []


def test_a_name_that_is_not_listed_is_found():
    assert unlisted([*PUBLIC, "escnn_attn.Unlisted"], LISTED) == ["escnn_attn.Unlisted"]
