"""Imports of the package change no global state."""

import subprocess
import sys

CODE = """
import logging, sys, warnings
import escnn_attn

assert not {"pytorch_lightning", "hydra", "matplotlib"} & set(sys.modules), "heavy imports"

import hydra, hydra.experimental.callback, matplotlib, pytorch_lightning, pytorch_lightning.loggers, rich.table, torchmetrics

LOGGERS = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]

def state():
    levels = [(logger.level, logger.disabled, list(logger.handlers)) for logger in LOGGERS]
    return dict.__getitem__(matplotlib.rcParams, "backend"), list(warnings.filters), levels

before = state()
import escnn_attn.analysis, escnn_attn.data, escnn_attn.training
assert state() == before, "changed by an import"
for change in (
    lambda: warnings.filterwarnings("ignore", module="nothing"),
    lambda: logging.getLogger("pytorch_lightning").setLevel(logging.ERROR),
    lambda: matplotlib.use("svg"),
):
    before = state()
    change()
    assert state() != before, "not noticed"
"""


def test_imports_leave_matplotlib_warnings_and_loggers_alone():
    """In a new process; the check notices a change of each."""
    subprocess.run([sys.executable, "-c", CODE], check=True)
