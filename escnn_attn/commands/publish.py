"""Exports the weights of a finished run: python scripts/publish.py run=outputs/… folder=weights/mine

Options:
    run: folder of the run.
    folder: to write to.
    checkpoint: last (averaged weights of the last epoch) or best.
    trust: names of modules and layers of your own in it, such as [my_package.MyBlock].
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from escnn_attn.training import parse_options, publish


@dataclass
class Options:
    run: Path = MISSING
    folder: Path = MISSING
    checkpoint: str = "last"
    trust: list[str] = field(default_factory=list)


def main() -> None:
    options = parse_options(Options, __doc__)
    publish(options.run, options.folder, options.checkpoint, trust=options.trust)
