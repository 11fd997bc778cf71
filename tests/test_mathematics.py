"""The numbered equations of docs/mathematics.md, and the citations of them in the code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "mathematics.md").read_text()
SOURCES = sorted((ROOT / "escnn_attn").rglob("*.py"))

#: "equation (3)", "Equations (3), (4) and (6)", also over a line break, and a comment that is a number: "# (3)"
CITATION = re.compile(r"\b[Ee]quations?\s+(\(\d+\)(?:(?:,|\s|and|or|to|–|-)+\(\d+\))*)|#\s*(\(\d+\))")


def numbered(page: str) -> list[int]:
    """The numbers of the displayed formulas, in the order of the page; an AssertionError for a formula without one."""
    formulas = re.findall(r"\$\$(.+?)\$\$", page, re.DOTALL)
    tags = [re.findall(r"\\tag\{(\d+)\}", formula) for formula in formulas]
    for formula, numbers in zip(formulas, tags, strict=True):
        assert len(numbers) == 1, f"expected one \\tag in {formula}"
    return [int(numbers[0]) for numbers in tags]


def cited(text: str) -> list[int]:
    """The numbers of the equations that a text cites."""
    return [int(number) for match in CITATION.finditer(text) for number in re.findall(r"\((\d+)\)", match[0])]


def missing(text: str, page: str) -> list[int]:
    """The numbers that a text cites and a page does not have."""
    return sorted(set(cited(text)) - set(numbered(page)))


def test_equations_are_numbered_consecutively():
    numbers = numbered(PAGE)
    assert len(numbers) > 20
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_cited_equations_exist(path):
    assert missing(path.read_text(), PAGE) == []


def test_the_page_cites_its_own_equations():
    in_prose = re.sub(r"\$\$.+?\$\$", "", PAGE, flags=re.DOTALL)
    assert {int(number) for number in re.findall(r"(?<![\w)])\((\d{1,2})\)", in_prose)} <= set(numbered(PAGE))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("see equation (99) of docs/mathematics.md", [99]),
        ("Equations (3), (98) and\n(99)", [98, 99]),
        ("equations (1) to (97)", [97]),
        ("q = encode(q)  # (96)", [96]),
        ("equation (3), and a call of f (95)", []),
    ],
)
def test_missing_equations_are_found(text, numbers):
    assert missing(text, PAGE) == numbers


def test_formulas_without_a_number_are_found():
    with pytest.raises(AssertionError, match=r"one .tag"):
        numbered("$$a = b \\tag{1}$$ and $$c = d$$")
