"""Draws a small data set of colored shapes as PNG files: python scripts/make_shapes.py folder=shapes

Upright shapes for training, and shapes at any angle for test.

Options:
    folder: to write to.
    train: number of pictures for training.
    validation: for validation; 0 for no folder, so that training takes a share of its pictures.
    test: for test.
    side: of the pictures, in pixels.
    per_image: number of shapes on a picture; 1 gives a folder for each class, more give images and masks.
    seed: of the pictures.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import MISSING

from escnn_attn.data import write_shapes
from escnn_attn.training import brief_errors, parse_options


@dataclass
class Options:
    folder: Path = MISSING
    train: int = 500
    validation: int = 0
    test: int = 200
    side: int = 64
    per_image: int = 1
    seed: int = 0


@brief_errors
def main() -> None:
    options = parse_options(Options, __doc__)
    write_shapes(**asdict(options))
    print(f"{options.train + options.validation + options.test} pictures in {options.folder}")
