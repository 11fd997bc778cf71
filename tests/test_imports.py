"""Which file may import which: each folder those before it in the order of the floors, and no file itself in a circle."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import escnn_attn

ROOT = Path(escnn_attn.__file__).parent
#: each imports from those before it alone
FLOORS = (
    "_version", "modes", "compat", "arguments", "files", "fields", "functional", "tokens", "testing", "nn", "pretrained", "models", "data", "analysis", "training",
    "commands",
)  # fmt: skip


def imported(source: str) -> set[str]:
    """Modules of this package that a source imports, for types alone too; each name may be one."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.module]
    return {name for node in found for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))}


def graph() -> dict[str, set[str]]:
    files = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
    files = {name.removesuffix(".__init__"): path for name, path in files.items() if "conf" not in path.parts}
    return {name: imported(path.read_text()) & (files.keys() - {"escnn_attn"}) for name, path in files.items()}


def climbing(needed: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Imports from a floor further on."""
    floors = {name: FLOORS.index(name.split(".")[1]) for name in needed if "." in name}
    return [(name, other) for name in floors for other in needed[name] if floors[other] > floors[name]]


def test_floors_import_from_those_before_them():
    assert climbing(graph()) == []
    assert climbing({"escnn_attn.nn.norm": {"escnn_attn.models"}, "escnn_attn.models": set()})  # the check can fail


def test_no_file_imports_in_a_circle():
    """The package itself, which imports all, aside."""
    assert len(list(TopologicalSorter(graph()).static_order())) > 50
    circle = {"a": imported("from b import c"), "b": imported("if TYPE_CHECKING:\n    from a import d")}
    with pytest.raises(CycleError):
        TopologicalSorter(circle).prepare()


def test_neither_the_package_nor_shipped_weights_import_what_training_needs():
    """Nor drawing: Lightning, Hydra and matplotlib stay out."""
    code = """
import sys, escnn_attn
escnn_attn.SteerableTransformer.from_pretrained("rotmnist_50k")
print([name for name in ("pytorch_lightning", "hydra", "omegaconf", "matplotlib", "torchmetrics", "torch._dynamo") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def first_imports(source: str) -> list[str]:
    """Of escnn and this package, in the order of a source, each where it is first imported."""
    names = (name for node in ast.walk(ast.parse(source)) for name in imported_packages(node))
    return list(dict.fromkeys(name for name in names if name in ("escnn", "escnn_attn")))


def imported_packages(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    return [node.module.split(".")[0]] if isinstance(node, ast.ImportFrom) and node.module else []


def sources() -> dict[str, str]:
    """Programs, and blocks of code on pages, that import this package."""
    top = ROOT.parent
    files = {
        str(path.relative_to(top)): path.read_text()
        for folder in ("examples", "benchmarks", "scripts")
        for path in (top / folder).glob("*.py")
    }
    pages = {str(path.relative_to(top)): path.read_text() for path in [top / "README.md", *top.glob("docs/**/*.md")]}
    blocks = {
        f"{name}, block {i}": code
        for name, page in pages.items()
        for i, code in enumerate(re.findall(r"^```python.*\n([^`]*)^```", page, re.MULTILINE))
    }
    return {name: source for name, source in {**files, **blocks}.items() if "escnn_attn" in source}


@pytest.mark.parametrize("name", sources())
def test_programs_import_escnn_attn_before_escnn(name):
    """Alone, escnn cannot be imported where lie_learn is missing."""
    assert first_imports(sources()[name])[:1] != ["escnn"]
    assert first_imports("from escnn import nn\nimport escnn_attn") == ["escnn", "escnn_attn"]  # the check can fail
