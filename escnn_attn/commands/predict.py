"""Predicts the classes of images: python scripts/predict.py checkpoint=outputs/…/checkpoints/best.ckpt photos/*.jpg more_photos

A classifier writes predictions.csv: file, class and the probability of each class. A segmentation writes a PNG mask of class
indices for each image, in the size of the image; 255 is what the network did not see of it.

Options:
    files, folders or patterns of images, without a key.
    checkpoint: of a training on image files, data=images or data=segmentation.
    output: folder to write to.
    batch_size: images per batch.
    skip_broken: leave out files that cannot be read, with a warning, instead of naming them all in an error.
    device: such as cpu or cuda; by default a GPU if there is one.
    trust: names of modules and layers of your own in the checkpoint, such as [my_package.MyBlock].
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import MISSING

from escnn_attn.data.preparation import with_palette
from escnn_attn.files import write_atomically
from escnn_attn.training import ImageClassifier, ImagePredictor, find_images, load_module, parse_options


@dataclass
class Options:
    checkpoint: str = MISSING
    output: Path = Path("predictions")
    batch_size: int = 64
    skip_broken: bool = False
    device: str | None = None
    trust: list[str] = field(default_factory=list)


def main() -> None:
    places = [argument for argument in sys.argv[1:] if _is_place(argument)]
    options = parse_options(Options, __doc__, [argument for argument in sys.argv[1:] if argument not in places])
    if not places:
        raise SystemExit(f"expected files, folders or patterns of images\n\n{__doc__}")
    module = load_module(options.checkpoint, trust=options.trust)
    module = module.to(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    predictor = ImagePredictor(module, options.batch_size)
    files = find_images(places, options.skip_broken)
    if isinstance(module, ImageClassifier):
        target = options.output / "predictions.csv"
        predictor.write_classes(files, target)
        print(f"{len(files)} images: {target}")
    else:
        _write_masks(predictor, files, options.output)
        print(f"{len(files)} masks in {options.output}")


def _is_place(argument: str) -> bool:
    return not argument.startswith("-") and ("=" not in argument or Path(argument).exists())


def _write_masks(predictor: ImagePredictor, files: dict[Path, Path], folder: Path) -> None:
    targets: dict[Path, Path] = {}
    for path, name in files.items():
        target = folder / name.with_suffix(".png")
        if target in targets.values():
            other = next(file for file, taken in targets.items() if taken == target)
            raise SystemExit(f"expected images of different names, got {other} and {path}, whose masks would both be {target}")
        targets[path] = target
    for path, mask in predictor.masks(files):
        targets[path].parent.mkdir(parents=True, exist_ok=True)
        write_atomically(targets[path], with_palette(mask).save)
