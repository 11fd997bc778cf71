"""Turns a finished run into weights that ship: python scripts/publish.py outputs/… escnn_attn/pretrained/rotmnist."""

import argparse
from pathlib import Path

from escnn_attn.training.publish import publish

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--checkpoint", default="last", help="last (the averaged weights of the last epoch) or best")
    options = parser.parse_args()
    publish(options.run, options.folder, options.checkpoint)
