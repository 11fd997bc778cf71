"""Fetches MNIST into the cache, and makes rotated MNIST from it: python scripts/fetch_mnist.py"""

from escnn_attn.data import RotatedMNIST
from escnn_attn.data._files import cache_folder

if __name__ == "__main__":
    RotatedMNIST().prepare_data()
    print(f"MNIST and rotated MNIST are in {cache_folder()}")
