"""Pretended tensors: nothing is made on the wrong device, grids wait for no device, and no cache keeps what is not real."""

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
import torch.utils.backend_registration
from escnn.nn import GeometricTensor
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import functional_call, vmap

from escnn_attn import (
    BilinearFeedForward,
    Disc,
    DistanceBias,
    FourierFeedForward,
    FourierGELU,
    GatedFeedForward,
    GroupSelfAttention,
    InvariantPooling,
    LiftingSelfAttention,
    NoPosition,
    QueryKeyRotaryEmbedding,
    RadialBias,
    SteerableFieldTransformer,
    SteerableLinear,
    SteerableTransformer,
    field_type,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from escnn_attn.tokens.grid import _TABLES
from tests.helpers import mixed_type, small_model

O2, D4 = planar_gspace("O2"), planar_gspace("D4")
T = fourier_type(O2, 2, 2)
BLOCKS = {
    "block": {},
    "block of discs": {"neighborhood": Disc(2.0)},
    "block of wide discs": {"neighborhood": Disc(9.0)},
    "block with dropout": {"dropout": 0.5, "drop_path": 0.5},
    "block of samples": {"feedforward": FourierFeedForward},
    "gated block": {"feedforward": GatedFeedForward},
    "block with distances": {"position": DistanceBias},
    "block with a radial bias": {"position": RadialBias},
    "block without position": {"position": NoPosition},
    "query-key block": {"position": QueryKeyRotaryEmbedding},
}


class PeriodicBlock(nn.Module):
    """A block on periodic grids."""

    def __init__(self):
        super().__init__()
        self.in_type, self.block = T, steerable_block(T, num_heads=1, neighborhood=Disc(2.0))

    def forward(self, x):
        return self.block(x, periodic=True)


MODULES: dict[str, Callable[[], nn.Module]] = {
    **{name: partial(steerable_block, T, num_heads=1, **options) for name, options in BLOCKS.items()},
    "periodic block": PeriodicBlock,
    "linear": lambda: SteerableLinear(mixed_type("D4"), mixed_type("D4")),
    "feed-forward": lambda: BilinearFeedForward(T),
    "nonlinearity": lambda: FourierGELU(T),
    "pooling": lambda: InvariantPooling(T),
    "group attention": lambda: GroupSelfAttention(fourier_type(D4, 2), num_heads=1),
    "lifting": lambda: LiftingSelfAttention(field_type(D4, scalars=2), fourier_type(D4, 2), num_heads=1),
    "network": lambda: small_model("SO2", SteerableTransformer),
    "finite network": lambda: small_model("C4", SteerableTransformer),
    "dense network": lambda: small_model("O2", SteerableFieldTransformer, out_fields={"vectors": 1}),
}


def run(module: nn.Module, side: int, device: str = "cpu", **tensors: torch.Tensor) -> torch.Tensor:
    """The output of a module for images made on a device, perhaps with other parameters and buffers."""
    x = torch.randn(2, module.in_type.size, side, side, device=device, requires_grad=True)
    out = functional_call(module, tensors, (GeometricTensor(x, module.in_type),))
    return out.tensor if isinstance(out, GeometricTensor) else out


def pretended(module: nn.Module, mode: FakeTensorMode, device: str) -> dict[str, torch.Tensor]:
    """Parameters and buffers of a module as pretended tensors on a device."""
    parts = (*module.named_parameters(), *module.named_buffers())
    with mode:
        moved = {name: mode.from_tensor(part.detach()).to(device) for name, part in parts}
    return {name: part.requires_grad_(part.is_floating_point()) for name, part in moved.items()}


def on_a_pretended_gpu(*names: str) -> None:
    """Runs modules forward and backward on a device that does not exist: for a process of its own, as torch keeps the device.

    A tensor made on the CPU, or a number that is read from the device, is an error.
    """
    from torch.utils import backend_registration as torchs

    backend = torchs._DummyBackendModule()
    backend.get_amp_supported_dtype = lambda: [torch.bfloat16]
    torchs._setup_privateuseone_for_python_backend("gpu", backend)
    for name in names or MODULES:
        for training in (True, False) if "network" in name and not names else (True,):
            mode, module = FakeTensorMode(allow_non_fake_inputs=True), MODULES[name]().train(training)
            tensors = pretended(module, mode, "gpu:0")
            with mode:
                out = run(module, 21, "gpu:0", **tensors)
                out.square().sum().backward()
            learnt = [tensors[key] for key, _ in module.named_parameters()]
            assert all(x.grad is not None and x.grad.device.type == "gpu" for x in learnt), name


@pytest.mark.parametrize(
    "names", [pytest.param(("network",), id="network"), pytest.param((), id="all", marks=pytest.mark.slow)]
)
def test_forward_and_backward_on_a_pretended_gpu(names):
    """A network of images in training; all modules, and networks in eval mode too, where tests may be `slow`."""
    if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this version of torch has no devices made in Python")
        # without the usual end, at which a thread of torch's autograd engine for the device that is not there may still be at work
    code = f"import os; from tests.models.test_fake import on_a_pretended_gpu; on_a_pretended_gpu(*{names}); os._exit(0)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def kept_tensors() -> Iterator[torch.Tensor]:
    """All tensors that the tables of grids refer to."""
    seen, waiting = set(), [_TABLES]
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, type):
            continue
        seen.add(id(found))
        if isinstance(found, torch.Tensor):
            yield found
        elif isinstance(found, dict | list | tuple) or hasattr(found, "__dict__"):
            waiting += gc.get_referents(found)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # escnn hashes modules by their bases
@pytest.mark.parametrize("name", ["block", "block of discs", "block with distances", "group attention", "network"])
@pytest.mark.parametrize("first", ["fake", "meta", "inference", "vmap"])
def test_nothing_pretended_is_kept(name, first):
    """Whatever came first, a fresh module on the same size of image computes and learns."""
    _TABLES.clear()
    module = MODULES[name]()
    match first:
        case "fake":
            mode = FakeTensorMode(allow_non_fake_inputs=True)
            tensors = pretended(module, mode, "cpu")
            with mode:
                run(module, 17, **tensors)
        case "meta":
            with torch.device("meta"):
                MODULES[name]()
        case "inference":
            with torch.inference_mode():
                run(module, 17)
        case "vmap":

            def one(x: torch.Tensor) -> torch.Tensor:
                out = module(module.in_type(x))
                return out.tensor if isinstance(out, GeometricTensor) else out

            vmap(one, randomness="different")(torch.randn(2, 1, module.in_type.size, 17, 17))
    assert not any(isinstance(x, FakeTensor) or x.is_inference() or x.is_meta for x in kept_tensors())
    fresh = MODULES[name]()
    run(fresh, 17).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in fresh.parameters())
