"""The site is whole: its pages are in the menu, and a browser that reads it asks no other server for anything."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONFIG = (ROOT / "mkdocs.yml").read_text()
#: what pages are made of, with the files that they include
TEXTS = [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
ASSETS = [path for path in DOCS.rglob("*") if path.suffix in {".js", ".css"}]
#: names of XML, which nothing fetches
NAMES = re.compile(r"https?://www\.w3\.org/")

#: what a browser fetches without a click: pictures, scripts, style sheets, frames, fonts
FETCHED = re.compile(
    r"!\[[^\]]*\]\(\s*(?:https?:)?//"
    r"|<(?:img|script|iframe|source|video|audio|embed|object)\b[^>]*\b(?:src|data|srcset)\s*=\s*[\"']?(?:https?:)?//"
    r"|<link\b[^>]*\bhref\s*=\s*[\"']?(?:https?:)?//"
    r"|```\s*mermaid"  # the theme fetches mermaid
)


def addresses(text: str) -> list[str]:
    """The addresses in a script, a style sheet or a configuration."""
    return [address for address in re.findall(r"(?:https?:)?//[\w-]+(?:\.[\w-]+)+[^\s\"')]*", text) if not NAMES.match(address)]


def settings(config: str) -> str:
    """A configuration without its comments and its links."""
    return re.sub(r"#.*|^(?:site_url|repo_url):.*", "", config, flags=re.MULTILINE)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_fetch_nothing_from_elsewhere(path):
    assert FETCHED.findall(re.sub(r"```(?!\s*mermaid).*?```", "", path.read_text(), flags=re.DOTALL)) == []


@pytest.mark.parametrize("path", ASSETS, ids=lambda path: str(path.relative_to(DOCS)))
def test_scripts_and_styles_name_no_other_server(path):
    assert addresses(path.read_text()) == []


def test_the_theme_fetches_nothing():
    """Material takes its fonts from a server of Google unless told not to, and numbers of a repository from GitHub."""
    assert addresses(settings(CONFIG)) == []
    assert re.search(r"^  font: false$", CONFIG, re.MULTILINE)
    assert "repo_url" not in CONFIG


def test_scripts_and_styles_of_the_configuration_are_here():
    listed = re.findall(r"^  - (\S+\.(?:js|css))\b", CONFIG, re.MULTILINE)
    assert listed
    assert [name for name in listed if not (DOCS / name).is_file()] == []


def test_mathjax_is_here_with_its_parts_and_license():
    folder = DOCS / "javascripts" / "mathjax"
    parts = re.findall(r'"((?:input|output|a11y)/[\w-]+)"', (DOCS / "javascripts" / "mathjax.js").read_text())
    assert len(parts) == 3
    for part in ["startup", "core", "output/chtml/fonts/tex", *parts]:
        assert (folder / f"{part}.js").is_file(), part
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert len(list((folder / "output/chtml/fonts/woff-v2").glob("*.woff"))) == 23


def test_pages_are_in_the_menu_once():
    listed = re.findall(r":\s+([\w/-]+\.md)\s*$", settings(CONFIG), re.MULTILINE)
    assert sorted(listed) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_pictures_are_in_the_gallery():
    shown = re.findall(r"!\[.+?\]\(images/(\S+?)\)", (DOCS / "gallery.md").read_text())
    assert sorted(shown) == sorted(path.name for path in (DOCS / "images").iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "![a plot](https://example.org/plot.png)",
        '<script src="//cdn.example.org/x.js"></script>',
        "<img alt='' src=http://example.org/x.png>",
        '<link rel="stylesheet" href="https://example.org/x.css">',
        "```mermaid\ngraph TD\n```",
    ],
)
def test_what_is_fetched_is_found(text):
    assert FETCHED.search(text)


def test_addresses_are_found():
    assert addresses('load("https://cdn.example.org/mathjax@3/tex.js")') == ["https://cdn.example.org/mathjax@3/tex.js"]
    assert addresses("@import url(//fonts.example.org/css)") == ["//fonts.example.org/css"]
    assert not FETCHED.search("[a link](https://example.org)")
