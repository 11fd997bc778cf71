"""Predicts for images, clouds of points or fields: python scripts/predict.py checkpoint=outputs/…/checkpoints/best.ckpt photos/*.jpg more_photos

What is read and written depends on the training of the checkpoint:
    classes of images (data=images): image files; predictions.csv with file, class and the probability of each class.
    classes of pixels (data=segmentation): image files; a PNG mask of class indices for each image, in the size of the image; 255 is
        what the network did not see of it.
    vectors at points (such as data=nbody): .npz files with positions (points, 2), features (points, channels) and, of several clouds,
        batch (points,), the index of each point's cloud; or positions (clouds, points, 2) and features (clouds, points, channels).
        Features are those of the training: of data=nbody charge and velocity. A file of the same name with predictions (points, 2)
        or (clouds, points, 2).
    fields on a grid (such as data=flow): .npz files with fields (n, channels, height, width), components along x and y with the rows
        along −y. A file of the same name with predictions (n, channels, height, width).
All files are checked before the first prediction; files are written whole.

Options:
    files, folders or patterns of images or arrays, without a key.
    checkpoint: of a training on such files or data.
    pretrained: instead of it, of points and fields: a folder that save_pretrained or scripts/publish.py wrote, or a repository
        user/name of the Hugging Face Hub.
    output: folder to write to.
    batch_size: images, clouds or fields at a time.
    skip_broken: leave out files that cannot be read, with a warning, instead of naming them all in an error.
    device: such as cpu or cuda; by default a GPU if there is one.
    trust: names of modules and layers of your own in the checkpoint, such as [my_package.MyBlock].
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

from escnn_attn.data.preparation import with_palette
from escnn_attn.files import write_atomically
from escnn_attn.models import PretrainedNetwork
from escnn_attn.training import (
    ArrayPredictor,
    CloudPredictor,
    CloudRegression,
    FieldPredictor,
    FieldRegression,
    ImageClassifier,
    ImagePredictor,
    SupervisedModule,
    brief_errors,
    find_arrays,
    find_images,
    load_module,
    parse_options,
)
from escnn_attn.training.array_prediction import regression_of


@dataclass
class Options:
    checkpoint: str | None = None
    pretrained: str | None = None
    output: Path = Path("predictions")
    batch_size: int = 64
    skip_broken: bool = False
    device: str | None = None
    trust: list[str] = field(default_factory=list)


@brief_errors
def main() -> None:
    places = [argument for argument in sys.argv[1:] if _is_place(argument)]
    options = parse_options(Options, __doc__, [argument for argument in sys.argv[1:] if argument not in places])
    if not places:
        raise SystemExit(f"expected files, folders or patterns of images or arrays\n\n{__doc__}")
    module = _module_of(options).to(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if isinstance(module, CloudRegression):
        _write_arrays(CloudPredictor(module, options.batch_size), places, options)
    elif isinstance(module, FieldRegression):
        _write_arrays(FieldPredictor(module, options.batch_size), places, options)
    else:
        _write_classes(ImagePredictor(module, options.batch_size), places, options)


def _module_of(options: Options) -> SupervisedModule:
    if options.checkpoint is not None and options.pretrained is None:
        return load_module(options.checkpoint, trust=options.trust)
    if options.pretrained is not None and options.checkpoint is None:
        return regression_of(PretrainedNetwork.from_pretrained(options.pretrained, trust=options.trust))
    raise SystemExit(f"expected either checkpoint=… or pretrained=…\n\n{__doc__}")


def _is_place(argument: str) -> bool:
    return not argument.startswith("-") and ("=" not in argument or Path(argument).exists())


def _write_arrays(predictor: ArrayPredictor, places: list[str], options: Options) -> None:
    found = find_arrays(places)
    whole = predictor.whole_files(found, options.skip_broken)
    predictor.write(_targets({path: found[path] for path in whole}, options.output, ".npz"))
    print(f"predictions for {len(whole)} files in {options.output}")


def _write_classes(predictor: ImagePredictor, places: list[str], options: Options) -> None:
    files = find_images(places, options.skip_broken)
    if isinstance(predictor.module, ImageClassifier):
        target = options.output / "predictions.csv"
        predictor.write_classes(files, target)
        print(f"{len(files)} images: {target}")
        return
    targets = _targets(files, options.output, ".png")
    for path, mask in predictor.masks(files):
        targets[path].parent.mkdir(parents=True, exist_ok=True)
        write_atomically(targets[path], with_palette(mask).save)
    print(f"{len(files)} masks in {options.output}")


def _targets(files: dict[Path, Path], folder: Path, suffix: str) -> dict[Path, Path]:
    """Where the result of each file is written: each to a place of its own, and none over a file that is read."""
    targets: dict[Path, Path] = {}
    read = {path.resolve() for path in files}
    for path, name in files.items():
        target = folder / name.with_suffix(suffix)
        if target in targets.values():
            other = next(file for file, taken in targets.items() if taken == target)
            raise ValueError(f"expected files of different names, got {other} and {path}, whose results would both be {target}")
        if target.resolve() in read:
            raise ValueError(f"expected another output folder than {folder}, where {target} is one of the files to read")
        targets[path] = target
    return targets
