"""Modules, networks and escnn's types through `pickle`, within a process and across processes."""

import copy
import pickle
import subprocess
import sys
from functools import partial

import escnn.nn
import numpy as np
import pytest
import torch
import torch.multiprocessing
from escnn.group import change_basis
from escnn.gspaces import flip2dOnR2, no_base_space
from escnn.nn import FieldType

from escnn_attn import (
    Disc,
    DistanceBias,
    FourierFeedForward,
    FourierGELU,
    GatedFeedForward,
    GroupSelfAttention,
    InvariantPooling,
    KNearest,
    LiftingSelfAttention,
    RadialBias,
    SequentialModule,
    SteerableBatchNorm,
    SteerableCrossAttention,
    SteerableFieldTransformer,
    SteerableLinear,
    SteerablePointClassifier,
    SteerableRMSNorm,
    SteerableStack,
    field_type,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from tests.helpers import GROUPS, cloud, mixed_type, randomize, small_model

D4, O2 = planar_gspace("D4"), planar_gspace("O2")
SPECTRAL, REGULAR = fourier_type(O2, 4, 2), fourier_type(D4, 2)
MODULES = {
    "block": lambda: steerable_block(SPECTRAL, num_heads=2),
    "block of discs": lambda: steerable_block(SPECTRAL, num_heads=2, position=DistanceBias, neighborhood=Disc(1.5)),
    "block of neighbors": lambda: steerable_block(
        mixed_type("D4"), num_heads=2, feedforward=GatedFeedForward, position=RadialBias, neighborhood=KNearest(3)
    ),
    "group attention": lambda: GroupSelfAttention(REGULAR, num_heads=2),
    "lifting": lambda: LiftingSelfAttention(field_type(D4, scalars=2), REGULAR, num_heads=2),
    "samples": lambda: FourierFeedForward(SPECTRAL),
    "nonlinearity": lambda: FourierGELU(SPECTRAL),
    "linear": lambda: SteerableLinear(mixed_type("O2"), SPECTRAL),
    "pooling": lambda: InvariantPooling(mixed_type("O2")),
    "batch norm": lambda: SteerableBatchNorm(SPECTRAL),
    "stack": lambda: SteerableStack([steerable_block(SPECTRAL, num_heads=2), SteerableRMSNorm(SPECTRAL)]),
    "chain with escnn's modules": lambda: SequentialModule(
        escnn.nn.R2Conv(SPECTRAL, SPECTRAL, 3, padding=1), escnn.nn.IIDBatchNorm2d(SPECTRAL), steerable_block(SPECTRAL)
    ),
    "convolution of regular fields": lambda: SequentialModule(
        escnn.nn.R2Conv(REGULAR, REGULAR, 3), escnn.nn.InnerBatchNorm(REGULAR), escnn.nn.ReLU(REGULAR)
    ),
}
NETWORKS = {
    "images": partial(small_model, "O2"),
    "fields": partial(small_model, "C4", SteerableFieldTransformer, out_fields={"vectors": 1}),
    "points": partial(small_model, "SO2", SteerablePointClassifier),
}


def again(value: object) -> object:
    return pickle.loads(pickle.dumps(value))


def run(module: torch.nn.Module) -> torch.Tensor:
    """The output for a fixed input: an image, or a cloud for networks of points."""
    draw = torch.Generator().manual_seed(0)
    if isinstance(module, SteerablePointClassifier):
        return module(cloud(module.in_type))
    size = 29 if isinstance(module, torch.nn.Module) and hasattr(module, "stem") else 5
    out = module(module.in_type(torch.randn(2, module.in_type.size, size, size, generator=draw, dtype=torch.float64)))
    return out if isinstance(out, torch.Tensor) else out.tensor


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", [*MODULES, *NETWORKS])
def test_modules_and_networks_come_back_equal(name, training):
    module = randomize({**MODULES, **NETWORKS}[name]().double()).train(training)
    found = again(module)
    assert (found.in_type, found.out_type) == (module.in_type, module.out_type)
    assert found.training == training
    assert repr(found) == repr(module)
    assert torch.equal(run(found), run(module))
    found.load_state_dict(module.state_dict())
    assert torch.equal(run(found.train().eval()), run(module.train().eval()))


def test_cross_attention_comes_back_equal():
    module = SteerableCrossAttention(SPECTRAL, mixed_type("O2"), num_heads=2).double()
    x, context = cloud(module.in_type, 5), cloud(module.context_type, 7)
    assert torch.equal(again(module)(x, context).tensor, module(x, context).tensor)


@pytest.mark.parametrize("name", GROUPS)
def test_types_come_back_equal_and_the_representations_of_the_group_the_same(name):
    space = planar_gspace(name)
    t = mixed_type(space)
    found = again(t)
    assert found == t
    assert hash(found) == hash(t)
    assert found.gspace.fibergroup is space.fibergroup
    for back, rho in zip(found.representations, t.representations, strict=True):
        assert (back is rho) == (not rho.name.startswith("skewed"))
        assert np.array_equal(back.change_of_basis, rho.change_of_basis)
        assert back.supported_nonlinearities == rho.supported_nonlinearities


@pytest.mark.parametrize("space", [flip2dOnR2(), flip2dOnR2(0.0), no_base_space(O2.fibergroup)], ids=str)
def test_other_spaces_come_back_equal(space):
    assert again(space) == space
    assert again(space).name == space.name
    assert again(FieldType(space, [space.trivial_repr])) == FieldType(space, [space.trivial_repr])


def test_another_representation_of_the_same_name_is_refused():
    group = planar_gspace("C5").fibergroup
    data = pickle.dumps(change_basis(group.regular_representation, 2 * np.eye(5), name="taken"))
    group.representations["taken"] = change_basis(group.regular_representation, 3 * np.eye(5), name="taken")
    with pytest.raises(ValueError, match="expected the representation 'taken' that was pickled, but C5 has another one"):
        pickle.loads(data)


def test_copies_share_groups_and_representations():
    skewed = mixed_type("D4").representations[-2]
    for value in (O2.fibergroup, skewed, REGULAR):
        assert copy.deepcopy([value])[0] is value


def test_whole_modules_are_loaded_in_a_new_process(tmp_path):
    """Where no representation of theirs has been made before."""
    made = {name: randomize({**MODULES, **NETWORKS}[name]().double()).eval() for name in ("block of neighbors", "images")}
    torch.save({name: (module, run(module)) for name, module in made.items()}, tmp_path / "modules.pt")
    code = f"""
import torch
loaded = torch.load({str(tmp_path / "modules.pt")!r}, weights_only=False)
from escnn_attn import SteerableLinear, fourier_type, planar_gspace
from tests.test_pickling import run
torch.set_num_threads(1)
assert all(torch.equal(run(module), expected) for module, expected in loaded.values())
module = loaded["images"][0].blocks
assert module.in_type == fourier_type(planar_gspace("O2"), 4, 2)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def loss(module: torch.nn.Module, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2, SPECTRAL.size, 5, 5, generator=draw, dtype=torch.float64)
    return module(SPECTRAL(x)).tensor.square().mean()


def take_gradients(rank: int, file: str, module: torch.nn.Module, outputs) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    parallel = torch.nn.parallel.DistributedDataParallel(module)
    loss(parallel, rank).backward()
    outputs.put([p.grad.numpy() for p in module.parameters()])
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_a_block_has_the_mean_gradient_in_two_spawned_processes(tmp_path):
    """What `ddp_spawn` does: the block travels by pickle."""
    module = randomize(steerable_block(SPECTRAL, num_heads=2).double())
    outputs = torch.multiprocessing.get_context("spawn").SimpleQueue()
    torch.multiprocessing.spawn(take_gradients, (str(tmp_path / "rendezvous"), module, outputs), nprocs=2)
    expected = torch.autograd.grad((loss(module, 0) + loss(module, 1)) / 2, [*module.parameters()])
    for found in (outputs.get(), outputs.get()):
        assert all(np.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(found, expected, strict=True))
