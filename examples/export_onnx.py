"""A network for other programs: torch.export, and ONNX where its packages are installed.

You will learn that `export()` gives a network on plain tensors, without escnn's types, which torch exports like any other. Batch,
height and width stay open, so that one file serves images of all sizes that fit the strides of the stem. What the exported programs
compute is compared with the network, on two sizes and two batches.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from escnn_attn import Disc, SteerableTransformer, steerable_block

import torch
from torch import Tensor, nn
from torch.export import Dim

#: two batches and two sizes, each side one more than a multiple of 4: the stem has two strides of 2
SHAPES = ((2, 1, 29, 29), (5, 1, 37, 45))


def open_sizes() -> tuple[dict[int, Dim]]:
    """Which dimensions of the images stay open: batch, height and width."""
    height, width = (4 * Dim(f"_{side}", min=3, max=64) + 1 for side in ("height", "width"))
    return ({0: Dim("batch", min=1, max=256), 2: height, 3: width},)


def through_torch(plain: nn.Module) -> Callable[[Tensor], Tensor]:
    """The program of torch.export, which `torch.export.save` stores."""
    return torch.export.export(plain, (torch.rand(SHAPES[0]),), dynamic_shapes=open_sizes()).module()


def through_onnx(plain: nn.Module, path: Path) -> Callable[[Tensor], Tensor]:
    """The file of ONNX, run by ONNX Runtime."""
    torch.onnx.export(plain, (torch.rand(SHAPES[0]),), str(path), dynamo=True, dynamic_shapes=open_sizes(), verbose=False)
    session = import_module("onnxruntime").InferenceSession(str(path))
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def compare(name: str, exported: Callable[[Tensor], Tensor], network: nn.Module) -> float:
    """Prints and returns the largest difference of logits."""
    largest = 0.0
    for shape in SHAPES:
        images = torch.rand(shape)
        difference = (exported(images) - network(images)).abs().max().item()
        print(f"{name:12} batch {shape[0]} of {shape[2]} × {shape[3]} pixels: logits differ by {difference:.0e}")
        largest = max(largest, difference)
    return largest


@torch.no_grad()
def main(folder: str | None = None) -> dict[str, float]:
    """Largest differences; the file of ONNX goes to a folder, by default one that is deleted."""
    torch.manual_seed(0)
    block = partial(steerable_block, num_heads=2, neighborhood=Disc(3.0))  # a disc bounds the distances that positions see
    network = SteerableTransformer("SO2", channels=4, max_frequency=1, depth=1, block=block).eval()
    plain = network.export()
    differences = {"torch.export": compare("torch.export", through_torch(plain), network)}
    if not all(find_spec(package) for package in ("onnx", "onnxscript", "onnxruntime")):
        print('no ONNX here: pip install "escnn-attn[onnx]"')
        return differences
    with TemporaryDirectory() as temporary:
        path = Path(folder or temporary) / "network.onnx"
        differences["ONNX"] = compare("ONNX", through_onnx(plain, path), network)
    return differences


if __name__ == "__main__":
    main()
