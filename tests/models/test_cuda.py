"""On a GPU, where there is one: the results of the CPU, no waiting for the device on grids, half precision, compiled blocks."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from escnn.nn import GeometricTensor
from torch.utils.data import DataLoader, TensorDataset

from escnn_attn import Disc, KNearest, SteerableStack, SteerableTransformer, fourier_type, planar_gspace, steerable_block
from escnn_attn.training import CudaGraph, ImageClassifier
from tests.helpers import randomize, relative
from tests.models.test_fake import MODULES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
T = fourier_type(planar_gspace("O2"), 4, 2)


def run(module: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The output and the gradients."""
    module.zero_grad()
    leaf = x.clone().requires_grad_()
    out = module(module.in_type(leaf))
    out = out.tensor if isinstance(out, GeometricTensor) else out
    out.to(x.dtype).square().mean().backward()
    return out, [leaf.grad, *(parameter.grad for parameter in module.parameters())]


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("training", [True, False])
def test_results_are_those_of_the_cpu(name, training):
    module = randomize(MODULES[name]().double()).train(training)
    if training and "dropout" in name:
        pytest.skip("random numbers differ")
    x = torch.randn(2, module.in_type.size, 21, 21, dtype=torch.float64)
    (expected, gradients), moved = run(module, x), copy.deepcopy(module).cuda()
    found, found_gradients = run(moved, x.cuda())
    assert relative(found.cpu(), expected) < 1e-8
    for one, other in zip(found_gradients, gradients, strict=True):
        assert one.is_cuda
        torch.testing.assert_close(one.cpu(), other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", MODULES)
def test_grids_never_wait_for_the_gpu(name):
    module = MODULES[name]().cuda()
    x = torch.randn(2, module.in_type.size, 21, 21, device="cuda")
    run(module, x)  # tables are made
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(module, x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(name, dtype):
    module = randomize(MODULES[name]()).cuda().eval()
    x = torch.randn(2, module.in_type.size, 21, 21, device="cuda")
    expected, _ = run(module, x)
    with torch.autocast("cuda", dtype):
        found, gradients = run(module, x)
    assert relative(found.float(), expected) < 0.1
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("neighborhood", [None, Disc(1.0), KNearest(8)])
def test_clouds(neighborhood):
    stack = SteerableStack([steerable_block(T, num_heads=2, neighborhood=neighborhood) for _ in range(2)]).double()
    x, coords, batch = torch.randn(300, T.size).double(), torch.randn(300, 2).double(), torch.arange(300) // 100
    expected = stack(T(x, coords), batch=batch).tensor
    found = stack.cuda()(T(x.cuda(), coords.cuda()), batch=batch.cuda()).tensor
    assert relative(found.cpu(), expected) < 1e-8


def test_compiled_blocks():
    stack = SteerableStack([steerable_block(T, num_heads=2) for _ in range(2)]).cuda()
    x = torch.randn(2, T.size, 15, 15, device="cuda")
    expected, gradients = run(stack, x)
    gradients = [gradient.clone() for gradient in gradients]
    stack.compile()
    found, again = run(stack, x)
    assert relative(found, expected) < 1e-4
    for one, other in zip(again, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_a_recorded_step_trains_as_others(tmp_path):
    images = TensorDataset(torch.rand(24, 1, 21, 21), torch.arange(24) % 10)
    weights = []
    for callbacks in ([], [CudaGraph()]):
        torch.manual_seed(0)
        module = ImageClassifier(SteerableTransformer("SO2", channels=4, depth=1))
        trainer = pl.Trainer(
            max_epochs=2, accelerator="gpu", devices=1, callbacks=callbacks, default_root_dir=tmp_path, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader(images, batch_size=8))
        assert "forward" not in vars(module.model)
        weights.append([parameter.detach().cpu() for parameter in module.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
