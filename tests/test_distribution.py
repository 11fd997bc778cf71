"""What users install: the sdist builds the wheel, and the wheel alone has all that the package needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from escnn_attn import __version__

ROOT = Path(__file__).parents[1]
#: run away from the repository
USE = """
from pathlib import Path
import escnn_attn, escnn_attn.conf
from hydra import compose, initialize_config_module
print(escnn_attn.__version__, Path(escnn_attn.__file__).parent.parent)
network = escnn_attn.SteerableTransformer.from_pretrained("rotmnist_50k")
with initialize_config_module("escnn_attn.conf", version_base=None):
    assert compose("train").model
for name in ("py.typed", "data/shipped_digits/digits.npz"):
    assert (Path(escnn_attn.__file__).parent / name).is_file()
"""


def run(*command: object, **options: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_sdist_and_wheel_install_by_themselves(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet"]
    backend = [*pip, "install", "--target", tmp_path / "backend", "setuptools>=77"]
    run(*backend)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "backend")}
    code = f"import setuptools.build_meta as backend; print(backend.build_sdist({str(tmp_path)!r}))"
    run("git", "clone", "--quiet", ROOT, tmp_path / "clone")
    sdist = tmp_path / run(sys.executable, "-c", code, cwd=tmp_path / "clone", env=environment).split()[-1]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path / "wheels", sdist)
    (wheel,) = (tmp_path / "wheels").iterdir()
    run(*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    version, place = run(sys.executable, "-W", "ignore", "-c", USE, cwd=tmp_path, env=environment).split()
    assert (version, Path(place)) == (__version__, tmp_path / "site")
