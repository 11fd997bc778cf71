import subprocess
import sys

import escnn.group._numerical
import pytest

from escnn_attn import fourier_type, planar_gspace


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)


def test_importing_the_library_imports_no_training_dependency():
    heavy = ["pytorch_lightning", "hydra", "omegaconf", "matplotlib", "torchmetrics", "tensorboard"]
    done = python(f"import sys, escnn_attn; print([m for m in {heavy} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_numpy_2_is_named_as_the_cause():
    done = python("import numpy; numpy.__version__ = '2.1.0'; import escnn_attn")
    assert 'pip install "numpy<2"' in done.stderr


def test_the_solver_that_breaks_kernel_bases_is_off():
    assert escnn.group._numerical.randomized_svd is None


def test_global_state_is_left_alone():
    done = python("import torch; a = torch.get_rng_state(); import escnn_attn; print(torch.equal(a, torch.get_rng_state()))")
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize("name", ["SO2", "D4"])
def test_copies_share_field_types(name):
    import copy

    t = fourier_type(planar_gspace(name), 2, 1)
    assert copy.deepcopy({"type": t})["type"] is t
