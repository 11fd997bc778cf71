"""Data module of flows."""

import numpy as np
import pytest
import torch

from escnn_attn import field_type, planar_gspace
from escnn_attn.data import AugmentedFlow, Flow, TurbulenceConfig, budgets, turn, vorticity_of
from escnn_attn.testing import lattice_elements, transform

FEW = TurbulenceConfig(
    size=16, num_train=5, num_validation=2, num_test=12, num_intervals=3, num_steps=12, viscosity=0.02, peak=3.0
)


def test_samples_are_the_intervals_of_flows():
    data = Flow(4, simulation=FEW, batch_size=7)
    data.setup()
    assert {name: len(part) for name, part in data.datasets.items()} == {"train": 12, "validation": 6, "test": 36, "turned": 36}
    flows = data.trajectories("train")["train"]
    assert flows.shape == (4, 4, 2, 16, 16)
    before, after = data.datasets["train"][3 + 2]  # of the second flow the third interval
    assert torch.equal(before, flows[1, 2])
    assert torch.equal(after, flows[1, 3])
    assert [tuple(part.shape) for part in next(iter(data.train_dataloader()))] == [(7, 2, 16, 16)] * 2
    kept = FEW.trajectories()
    assert len({frame.tobytes() for part in kept.values() for flow in part for frame in flow}) == 19 * 4
    np.testing.assert_allclose(vorticity_of(flows.numpy()), kept["train"][:4], atol=1e-4)


def test_a_flow_is_decaying_and_changes_by_much_in_an_interval():
    flows = Flow(5, simulation=FEW).trajectories("test")["test"]
    energies = budgets(vorticity_of(flows.double().numpy()))[0]
    assert (np.diff(energies, axis=1) < 0).all()
    change = (flows[:, 1:] - flows[:, :-1]).flatten(2).norm(dim=-1) / flows[:, 1:].flatten(2).norm(dim=-1)
    assert 0.2 < change.mean() < 1


def test_the_turned_set_is_the_test_set_turned_and_mirrored():
    data = Flow(5, simulation=FEW)
    sets = data.trajectories("test", "turned")
    kinds = [(turns, mirrored) for turns in range(4) for mirrored in (False, True)]
    found = [
        [kind for kind in kinds if torch.equal(turn(flow, *kind), other)] for flow, other in zip(sets["test"], sets["turned"])
    ]
    assert all(len(kind) == 1 for kind in found)
    assert len({kind[0] for kind in found}) > 3
    assert torch.equal(Flow(5, simulation=FEW, seed=1).trajectories("turned")["turned"], sets["turned"])
    with pytest.raises(ValueError, match=r"expected names of .*'turned'\), got \['moved'\]"):
        data.trajectories("moved")


@pytest.mark.parametrize("group", ["O2", "D4"])
def test_turns_are_the_action_of_the_group_on_velocity_and_vorticity(group):
    gspace = planar_gspace(group)
    fields = field_type(gspace, vectors=1, pseudoscalars=1)
    data = Flow(5, vorticity=True, simulation=FEW)
    data.setup()
    x = torch.stack([data.datasets["test"][i][0] for i in range(3)])
    copies = [turn(x, turns, mirrored) for turns in range(4) for mirrored in (False, True)]
    for g in lattice_elements(gspace):
        moved = transform(fields(x), g).tensor
        assert sum(torch.allclose(moved, copy, atol=1e-6) for copy in copies) == 1
    for copy in copies:  # the vorticity is still that of the velocity
        vorticity = vorticity_of(copy[:, :2].double().numpy()) / FEW.peak
        np.testing.assert_allclose(copy[:, 2], vorticity, atol=1e-5)


def test_augmentation_turns_input_and_target_alike_and_repeats_with_the_step():
    data = AugmentedFlow(5, simulation=FEW, vorticity=True)
    data.setup()
    batch = list(next(iter(data.test_dataloader()[0])))
    assert data.on_before_batch_transfer(batch, 0) is batch  # without a trainer
    data.trainer = type("Trainer", (), {"training": True, "global_step": 7, "global_rank": 0})()
    x, y = data.on_before_batch_transfer(batch, 0)
    same = data.on_before_batch_transfer(batch, 0)
    assert torch.equal(x, same[0])
    data.trainer.global_step = 8
    assert not torch.equal(x, data.on_before_batch_transfer(batch, 0)[0])
    kinds = [(turns, mirrored) for turns in range(4) for mirrored in (False, True)]
    drawn = [next(kind for kind in kinds if torch.equal(turn(before, *kind), after)) for before, after in zip(batch[0], x)]
    assert set(drawn) == set(kinds)
    for kind, before, after in zip(drawn, batch[1], y):
        assert torch.equal(turn(before, *kind), after)
    data.trainer.training = False
    assert data.on_before_batch_transfer(batch, 0) is batch


@pytest.mark.parametrize("size", [0, 6])
def test_training_sizes_out_of_range_are_refused(size):
    with pytest.raises(ValueError, match=f"expected 1 to 5 training flows, got {size}"):
        Flow(size, simulation=FEW)
    with pytest.raises(ValueError, match="one interval and one flow in each set"):
        TurbulenceConfig(num_test=0)
