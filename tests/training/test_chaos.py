"""Runs that are killed, and a disk that is full: the script, in minutes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def chaos(*options: str) -> str:
    command = [sys.executable, "scripts/chaos.py", *options]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_twenty_kills_lose_at_most_an_epoch_each_and_break_no_file():
    assert "20 kills: every file readable" in chaos("kills=20", "disk=false")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to mount a tmpfs")
def test_a_full_disk_breaks_no_file(tmp_path):
    target = tmp_path / "disk"
    target.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", target], check=False, capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    subprocess.run(["umount", target], check=True)
    assert "full disk: every file readable" in chaos("kills=0", "epochs=20")
