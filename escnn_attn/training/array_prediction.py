"""Predictions for arrays in files: clouds of points, and fields on a grid."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from escnn_attn.arguments import require_instance, require_integer
from escnn_attn.data.nbody import PointBatch
from escnn_attn.data.preparation import left_out
from escnn_attn.files import write_atomically
from escnn_attn.models import SteerableDenseTransformer, SteerableFieldTransformer, SteerablePointTransformer, SteerableUNet
from escnn_attn.training._places import files_at
from escnn_attn.training.fields import FieldRegression
from escnn_attn.training.module import SupervisedModule
from escnn_attn.training.regression import CloudRegression


class ArrayPredictor(ABC):
    """Base class of predictors of `.npz` files: a trained module, and the arrays that it reads.

    A subclass defines `kind`, `prepared` and `predict`.

    Args:
        module: of `kind`; set to eval mode.
        batch_size: clouds or fields at a time.

    Raises:
        TypeError: for another module.

    Examples:
        >>> import tempfile
        >>> from escnn_attn.training import FieldPredictor, FieldRegression
        >>> predictor = FieldPredictor(FieldRegression(torch.nn.Conv2d(2, 2, 3, padding=1)))
        >>> path = Path(tempfile.mkdtemp()) / "flows.npz"
        >>> np.savez(path, fields=np.zeros((5, 2, 8, 8)))
        >>> predictor.write({path: path.with_name("predicted.npz")})
        >>> np.load(path.with_name("predicted.npz"))["predictions"].shape
        (5, 2, 8, 8)
    """

    #: class of the modules
    kind: type[SupervisedModule]

    def __init__(self, module: SupervisedModule, batch_size: int = 64) -> None:
        self.module: Any = require_instance("module", module, self.kind).eval()
        self.batch_size = require_integer("batch_size", batch_size)

    @abstractmethod
    def prepared(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """The argument of `predict`, of the arrays of a file.

        Raises:
            ValueError: that names the array that is missing, or does not fit the network.
        """

    @abstractmethod
    def predict(self, inputs: Any) -> Tensor:
        """Predictions, in the order of the arrays."""

    def whole_files(self, paths: Iterable[Path], skip_broken: bool = False) -> list[Path]:
        """Those of the files whose arrays fit; all are read.

        Raises:
            ValueError: that names all others, unless they may be skipped, which a warning tells.
        """
        broken, paths = {}, list(paths)
        for path in paths:
            try:
                self.prepared(read_arrays(path))
            except ValueError as error:
                broken[path] = str(error)
        return left_out(paths, broken, skip_broken, "arrays")

    def write(self, targets: Mapping[Path, Path]) -> None:
        """Writes for each file a file with the array `predictions`, whole or not at all."""
        for path, target in targets.items():
            predictions = self.predict(self.prepared(read_arrays(path))).numpy()
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, lambda aside, found=predictions: np.savez(aside, predictions=found))

    def numbers(self, arrays: Mapping[str, np.ndarray], name: str, shapes: str, dimensions: tuple[int, ...]) -> Tensor:
        """An array of finite numbers, as a tensor of the dtype of the module; `shapes` tells what is expected."""
        if name not in arrays:
            raise ValueError(f"expected an array {name} {shapes}, got {', '.join(arrays) or 'none'}")
        array = arrays[name]
        if array.dtype.kind not in "fiub" or array.ndim not in dimensions:
            raise ValueError(f"expected numbers {name} {shapes}, got {array.shape} of {array.dtype}")
        if not np.isfinite(array).all():
            raise ValueError(f"expected finite {name}, got NaN or infinity")
        dtype = next((p.dtype for p in self.module.parameters()), torch.float32)
        return torch.from_numpy(np.ascontiguousarray(array)).to(dtype)


class CloudPredictor(ArrayPredictor):
    """A trained module of clouds, with predictions at each point.

    The arrays are `positions` (points, 2) and `features` (points, channels) of one cloud, or of several with `batch` (points,), the index of
    each point's cloud; or (clouds, points, 2) and (clouds, points, channels). Arguments as of `ArrayPredictor`.

    Examples:
        >>> from escnn_attn import SteerablePointTransformer
        >>> from escnn_attn.training import CloudPredictor, CloudRegression
        >>> network = SteerablePointTransformer("C4", out_fields={"vectors": 1}, channels=2, depth=1)
        >>> predictor = CloudPredictor(CloudRegression(network))
        >>> clouds = predictor.prepared({"positions": np.random.rand(3, 5, 2), "features": np.ones((3, 5, 1))})
        >>> predictor.predict(clouds).shape
        torch.Size([3, 5, 2])
    """

    kind = CloudRegression

    def prepared(self, arrays: Mapping[str, np.ndarray]) -> tuple[PointBatch, tuple[int, ...]]:
        """The points of all clouds, and the shape of the arrays without the last axis."""
        coords = self.numbers(arrays, "positions", "(points, 2) or (clouds, points, 2)", (2, 3))
        shape = coords.shape[:-1]
        features = self.numbers(arrays, "features", f"{(*shape, 'channels')}".replace("'", ""), (len(shape) + 1,))
        if coords.shape[-1] != 2 or features.shape[:-1] != shape:
            raise ValueError(
                f"expected positions (…, 2) and features (…, channels) of the same points, got {tuple(coords.shape)} and "
                f"{tuple(features.shape)}"
            )
        batch = self._batch(arrays, shape)
        clouds = PointBatch(features.flatten(0, -2), coords.flatten(0, -2), batch, int(batch.max()) + 1 if len(batch) else 0)
        added, taken = self.module.features(clouds).shape[1] - features.shape[-1], self.module.model.in_type.size
        if features.shape[-1] + added != taken:
            raise ValueError(
                f"expected features of {taken - added} channels for a network of {self.module.model.in_type}, got "
                f"{tuple(features.shape)}"
            )
        return clouds, tuple(shape)

    @torch.no_grad()
    def predict(self, inputs: tuple[PointBatch, tuple[int, ...]]) -> Tensor:
        clouds, shape = inputs
        found = torch.zeros(len(clouds.batch), self.module.model.out_type.size)
        for start in range(0, clouds.batch_size, self.batch_size):
            count = min(self.batch_size, clouds.batch_size - start)
            chosen = (clouds.batch >= start) & (clouds.batch < start + count)
            parts = clouds.features[chosen], clouds.coords[chosen], clouds.batch[chosen] - start
            features, coords, batch = (part.to(self.module.device) for part in parts)
            found[chosen] = self.module(PointBatch(features, coords, batch, count)).cpu()
        return found.reshape(*shape, found.shape[1])

    @staticmethod
    def _batch(arrays: Mapping[str, np.ndarray], shape: torch.Size) -> Tensor:
        """The index of the cloud of each point."""
        if len(shape) == 2:
            return torch.arange(shape[0]).repeat_interleave(shape[1])
        batch = arrays.get("batch", np.zeros(shape, np.int64))
        if batch.dtype.kind not in "iu" or batch.shape != tuple(shape) or (batch.size and batch.min() < 0):
            raise ValueError(f"expected batch {tuple(shape)}, indices of clouds from 0, got {batch.shape} of {batch.dtype}")
        return torch.from_numpy(batch.astype(np.int64))


class FieldPredictor(ArrayPredictor):
    """A trained module of fields on a grid, with predictions at each pixel.

    The array is `fields` (n, channels, height, width), of components along x and y with the rows along −y. Arguments as of `ArrayPredictor`.

    Examples:
        >>> from escnn_attn.training import FieldPredictor, FieldRegression
        >>> predictor = FieldPredictor(FieldRegression(torch.nn.Conv2d(3, 2, 3, padding=1)))
        >>> predictor.predict(predictor.prepared({"fields": np.zeros((5, 3, 8, 8))})).shape
        torch.Size([5, 2, 8, 8])
    """

    kind = FieldRegression

    def __init__(self, module: SupervisedModule, batch_size: int = 64) -> None:
        super().__init__(module, batch_size)
        self._shapes: set[tuple[int, ...]] = set()

    def prepared(self, arrays: Mapping[str, np.ndarray]) -> Tensor:
        fields = self.numbers(arrays, "fields", "(n, channels, height, width)", (4,))
        shape = tuple(fields.shape[1:])
        if shape not in self._shapes and len(fields):  # the network alone knows which channels and sizes it takes
            try:
                self.predict(fields[:1])
            except (TypeError, ValueError, RuntimeError) as error:
                raise ValueError(
                    f"expected fields (n, channels, height, width) that the network takes, got {tuple(fields.shape)}: {error}"
                ) from error
            self._shapes.add(shape)
        return fields

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor:
        parts = inputs.split(self.batch_size) if len(inputs) else [inputs]
        return torch.cat([self.module(part.to(self.module.device)).cpu() for part in parts])


def regression_of(network: nn.Module) -> SupervisedModule:
    """The module that predicts with a network, such as one of `from_pretrained`.

    Raises:
        TypeError: if the network gives neither vectors at points nor fields on a grid.
    """
    if isinstance(network, SteerablePointTransformer):
        return CloudRegression(network)
    if isinstance(network, SteerableFieldTransformer | SteerableDenseTransformer | SteerableUNet):
        return FieldRegression(network)
    raise TypeError(
        f"expected a network of fields at points or pixels, got a {type(network).__name__}: of images name the checkpoint, which knows "
        "their preparation and classes"
    )


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file, without any pickle; a ValueError for a file that is none, or damaged."""
    try:
        with path.open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                named = "np.savez(fields=…) or np.savez(positions=…, features=…)"
                raise ValueError(f"one array without a name: save it by {named}")  # noqa: TRY004  (of a file, not an argument)
            with stored:
                return dict(stored)
    except Exception as error:  # noqa: BLE001  (of many kinds, by the damage)
        raise ValueError(f"expected an .npz file of arrays, got an unreadable one: {error}") from None


def find_arrays(places: Iterable[str | Path]) -> dict[Path, Path]:
    """`.npz` files at some places, each with a path to name its result by, as `find_images` finds images.

    Raises:
        FileNotFoundError: if there are none at a place.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "some" / "flows.npz"
        >>> path.parent.mkdir()
        >>> np.savez(path, fields=np.zeros((1, 2, 8, 8)))
        >>> [str(name) for name in find_arrays([path.parents[1]]).values()]
        ['some/flows.npz']
    """
    return files_at(places, lambda folder: sorted(folder.rglob("*.npz")), "array file")
