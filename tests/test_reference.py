"""Outputs are those of version 0.1, or of weights trained since, when they were added: every third number of each case is stored."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from .reference.cases import cases

STORED = load_file(Path(__file__).parent / "reference" / "outputs.safetensors")
CASES = cases()


def test_every_case_has_a_stored_output():
    assert CASES.keys() == STORED.keys()


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_stored(name):
    found, expected = CASES[name]().flatten()[::3].double(), STORED[name].double()
    assert (found - expected).norm() < 1e-6 * expected.norm()
