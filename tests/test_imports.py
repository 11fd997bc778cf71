"""Which file may import which: each only those below it, and the library nothing of training or benchmarks."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import escnn_attn

ROOT = Path(escnn_attn.__file__).parent


def imported(source: str) -> set[str]:
    """Modules of this package that a source imports, for types alone too; each name may be one."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.module]
    return {name for node in found for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))}


def graph() -> dict[str, set[str]]:
    files = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    return {name: imported(path.read_text()) & (files.keys() - {"escnn_attn"}) for name, path in files.items()}


def test_no_file_imports_in_a_circle():
    """The package itself, which imports all, aside."""
    assert len(list(TopologicalSorter(graph()).static_order())) > 50
    circle = {"a": imported("from b import c"), "b": imported("if TYPE_CHECKING:\n    from a import d")}
    with pytest.raises(CycleError):
        TopologicalSorter(circle).prepare()


def test_the_library_needs_neither_training_nor_benchmarks():
    above = ("escnn_attn.training", "benchmarks")
    for name, needed in graph().items():
        if not name.startswith(above):
            assert not [other for other in needed if other.startswith(above)], name
