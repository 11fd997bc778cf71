"""What every public name is documented with."""

import inspect

import pytest

import escnn_attn

PUBLIC = {name: getattr(escnn_attn, name) for name in escnn_attn.__all__ if callable(getattr(escnn_attn, name))}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_an_example_that_runs(name):
    """The doctest itself runs with the tests; arguments are described where there are any."""
    documentation = inspect.getdoc(PUBLIC[name])
    assert documentation == inspect.cleandoc(PUBLIC[name].__doc__)  # its own, not inherited
    assert ">>>" in documentation.partition("Examples:")[2]
    described = documentation.partition("Examples:")[0]
    assert any(part in described for part in ("Args:", "Attributes:", "defines", "`RotaryEmbedding`", "also forwards"))
