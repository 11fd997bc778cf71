import subprocess
import sys
from contextlib import nullcontext

import escnn.group._numerical
import escnn.nn
import pytest
from escnn.group import _clebsh_gordan

from escnn_attn import fourier_type, planar_gspace
from escnn_attn.compat.installation import import_escnn


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)


#: as if no package of that name were installed
WITHOUT = "import sys; sys.modules['{name}'] = None\n"
#: a lie_learn with the one function that escnn takes from it
WITH_LIE_LEARN = """
import sys, types
name = "lie_learn.representations.SO3.wigner_d"
sys.modules[name] = types.ModuleType(name)
sys.modules[name].wigner_D_matrix = lambda *args, **options: "called"
"""
SPACE = """
from escnn.group import so3_group
group = so3_group(1)
print(group.irrep(1)(group.identity))
"""


IN_VAIN = "try:\n    from escnn import nn\nexcept ImportError:\n    pass\n"


@pytest.mark.parametrize("first", ["", pytest.param("import escnn\n", marks=pytest.mark.slow), IN_VAIN])
def test_the_plane_needs_no_lie_learn(first):
    """Imported first without it, escnn leaves out its modules without a word; nothing stays in the place of lie_learn."""
    code = "import escnn_attn; from escnn import nn; escnn_attn.planar_gspace('C8').regular_repr\nprint([name for name in sys.modules if name.startswith('lie_learn.')])"
    done = python(WITHOUT.format(name="lie_learn") + first + code)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # escnn leaves /dev/null open
def test_representations_of_finite_groups_decompose():
    """Which escnn does by pymanopt and autograd, in concatenated nonlinearities for one."""
    space = planar_gspace("C8")
    irrep = escnn.nn.FieldType(space, [space.irrep(4)])
    assert escnn.nn.ConcatenatedNonLinearity(irrep, "c_relu").out_type.size == 2


def test_kernels_of_o2_are_made_without_a_word(monkeypatch, capfd):
    """The first samples are all the identity, so that escnn has to take more of them."""
    group = planar_gspace("O2").fibergroup
    first, sample = iter([group.identity] * 3), group.sample
    monkeypatch.setattr(group, "sample", lambda: next(first, None) or sample())
    tensor = _clebsh_gordan._clebsh_gordan_tensor.func((1, 1), (1, 2), (1, 3), group.__class__.__name__, **group._keys)
    assert next(first, None) is None
    assert tensor.shape[:2] == (2, 2)
    assert capfd.readouterr() == ("", "")


def test_space_says_what_to_install():
    done = python(WITHOUT.format(name="lie_learn") + "import escnn_attn" + SPACE)
    assert "ImportError" in done.stderr
    assert "escnn-attn[escnn]" in done.stderr


def test_lie_learn_is_used_where_it_is_there():
    done = python(WITH_LIE_LEARN + "import escnn_attn" + SPACE)
    assert done.stdout.strip() == "called", done.stderr


def test_a_missing_escnn_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "escnn", None)
    with pytest.raises(ImportError, match=r"run: pip install --no-deps escnn==1\.0\.11"):
        import_escnn()


@pytest.mark.parametrize(("version", "fits"), [("1.0.9", False), ("1.0.12", True), ("1.1", True)])
def test_versions_of_escnn(version, fits, monkeypatch):
    monkeypatch.setattr(escnn, "__version__", version)
    with nullcontext() if fits else pytest.raises(ImportError, match=f"expected escnn 1.0.11 or newer, got {version}"):
        import_escnn()


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
