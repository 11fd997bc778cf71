"""Fetches MNIST into the cache, and makes rotated MNIST from it: python scripts/fetch_mnist.py"""

from dataclasses import dataclass

from escnn_attn.data import RotatedMNIST
from escnn_attn.data._files import cache_folder
from escnn_attn.training import brief_errors, parse_options


@dataclass
class Options:
    pass


@brief_errors
def main() -> None:
    parse_options(Options, __doc__)
    RotatedMNIST().prepare_data()
    print(f"MNIST and rotated MNIST are in {cache_folder()}")
