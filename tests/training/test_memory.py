"""Freed memory."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from escnn_attn.training import keep_freed_memory
assert sys.argv[1] == "no" or keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    torch.ones(2**24)  # 64 MB, more than glibc ever keeps by itself
before = faults()
for _ in range(3):
    torch.ones(2**24)
print(faults() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_that_is_kept_does_not_fault_again():
    again, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, word], stdout=subprocess.PIPE, text=True, check=True).stdout)
        for word in ("no", "yes")
    )
    assert kept < 50
    assert again > kept  # huge pages may make these few
