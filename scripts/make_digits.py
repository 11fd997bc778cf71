"""Writes the digits that ship with the package from MNIST: `python scripts/make_digits.py [folder of MNIST]`."""

import sys
from pathlib import Path

from escnn_attn.data.digits import make_digits

if __name__ == "__main__":
    make_digits(Path("escnn_attn/training/digits/digits.npz"), *sys.argv[1:2])
