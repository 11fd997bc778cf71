"""The expanded filters of escnn's convolutions inside our chains and networks are those of the weights, in both modes."""

import copy
from collections.abc import Callable

import escnn.nn
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel

from escnn_attn import SequentialModule, SteerableTransformer, field_type, fourier_type, planar_gspace, steerable_block
from tests.helpers import relative, small_model

T = fourier_type(planar_gspace("SO2"), 2, 1)
V = field_type(planar_gspace("SO2"), vectors=2)
MODULES: dict[str, Callable[[], nn.Module]] = {
    "network": lambda: small_model("SO2", SteerableTransformer),
    "chain": lambda: SequentialModule(escnn.nn.R2Conv(T, T, 3, padding=1), steerable_block(T, num_heads=1)),
    "chain without a bias": lambda: SequentialModule(escnn.nn.R2Conv(T, V, 3, padding=1), escnn.nn.R2Conv(V, T, 3, padding=1)),
    "chain in a chain": lambda: SequentialModule(SequentialModule(escnn.nn.R2Conv(T, T, 3, padding=1))),
}
pytestmark = pytest.mark.parametrize("name", MODULES)


def output(module: nn.Module) -> torch.Tensor:
    x = torch.randn(2, module.in_type.size, 13, 13, generator=torch.Generator().manual_seed(0))
    out = module(module.in_type(x))
    return out if isinstance(out, torch.Tensor) else out.tensor


def fresh(name: str, state: dict) -> nn.Module:
    module = MODULES[name]()
    module.load_state_dict(state)
    return module.eval()


def step(module: nn.Module, through_data: bool = False) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            (parameter.data if through_data else parameter).add_(torch.randn_like(parameter) * 0.3)


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("averaged_training", [False, True])
def test_averages_of_weights(name, use_buffers, averaged_training):
    module = MODULES[name]().train()
    average = AveragedModel(module, use_buffers=use_buffers).train(averaged_training)
    states = []
    for _ in range(3):
        step(module)
        average.update_parameters(module.train())
        output(average.module)
        states.append(copy.deepcopy(module.state_dict()))
    mean = {key: sum(state[key] for state in states) / 3 for key in states[0]}
    with torch.no_grad():
        assert relative(output(average.module), output(fresh(name, mean))) < 1e-5


def test_both_modes_have_the_same_state_and_buffers(name):
    module = MODULES[name]()
    seen = []
    for mode in (True, False, True, False):
        module.train(mode)
        with torch.no_grad():
            output(module)
        seen.append((list(module.state_dict()), [key for key, _ in module.named_buffers()]))
    assert seen[0] == seen[1] == seen[2] == seen[3]


def test_eval_mode_has_the_gradients_of_training(name):
    module = MODULES[name]()
    found = []
    for mode in (True, False, False):  # twice in eval mode: a kept graph would be freed
        module.train(mode).zero_grad()
        output(module).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in module.parameters()])
    for trained, evaluated, again in zip(*found, strict=True):
        assert relative(evaluated, trained) < 1e-5
        assert torch.equal(evaluated, again)


@pytest.mark.parametrize("through_data", [False, True])
def test_filters_follow_weights_changed_in_eval_mode(name, through_data):
    module = MODULES[name]().eval()
    with torch.no_grad():
        before = output(module)
        step(module, through_data)
        assert relative(output(module), output(fresh(name, module.state_dict()))) < 1e-6
        assert relative(output(module), before) > 1e-3
        moved = module.double().float()
        assert relative(output(moved), output(fresh(name, module.state_dict()))) < 1e-6


def test_filters_follow_weights_given_to_functional_call(name):
    module, other = MODULES[name]().eval(), MODULES[name]().eval()
    step(other)
    with torch.no_grad():
        expected = output(other)
        x = module.in_type(torch.randn(2, module.in_type.size, 13, 13, generator=torch.Generator().manual_seed(0)))
        found = functional_call(module, dict(other.named_parameters()), (x,))
        found = found if isinstance(found, torch.Tensor) else found.tensor
        assert relative(found, expected) < 1e-6


def test_inference_mode_leaves_nothing_that_training_trips_over(name):
    module = MODULES[name]()
    with torch.inference_mode():
        module.eval()
        expected = output(module)
    output(module).sum().backward()
    copied = copy.deepcopy(module)
    with torch.no_grad():
        assert relative(output(copied), expected) < 1e-6


def test_modes_set_by_hand(name):
    """As Lightning restores them, without a call of `train`."""
    module = MODULES[name]().eval()
    with torch.no_grad():
        expected = output(module)
    for mode in (True, False, True):
        for part in module.modules():
            part.training = mode
    step(module.eval())
    with torch.no_grad():
        assert relative(output(module), output(fresh(name, module.state_dict()))) < 1e-6
        assert relative(output(module), expected) > 1e-3
