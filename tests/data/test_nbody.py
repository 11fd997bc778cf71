"""Data module of charged particles."""

import numpy as np
import pytest
import torch

from escnn_attn.data import NBody, SimulationConfig, point_batch

FEW = SimulationConfig(num_train=60, num_validation=20, num_test=30)


def test_there_are_3000_clouds_to_train_on_and_none_is_in_two_sets(shipped):
    clouds = NBody().clouds()
    sizes = {name: len(part.charges) for name, part in clouds.items()}
    assert sizes == {"train": 3000, "validation": 2000, "test": 2000, "moved": 2000}
    seen = [x.tobytes() for name in ("train", "validation", "test") for x in clouds[name].positions]
    assert len(set(seen)) == 7000
    np.testing.assert_array_equal(clouds["train"].charges, shipped[1]["train"].charges[:3000])
    np.testing.assert_array_equal(NBody(train_size=10).clouds()["test"].positions, clouds["test"].positions)


def test_the_moved_set_is_the_test_set_turned_and_shifted():
    clouds = NBody().clouds()
    test, moved = clouds["test"], clouds["moved"]
    np.testing.assert_array_equal(test.charges, moved.charges)
    # the least-squares matrix of each cloud that takes velocities to velocities
    turns = np.stack([np.linalg.lstsq(v, w, rcond=None)[0].T for v, w in zip(test.velocities, moved.velocities)])
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(2), turns.shape), atol=1e-8)
    assert (np.linalg.det(turns) > 0).mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(moved.displacements, np.einsum("cij,cpj->cpi", turns, test.displacements), atol=1e-8)
    shifts = moved.positions - np.einsum("cij,cpj->cpi", turns, test.positions)
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:, :1], shifts.shape), atol=1e-8)
    assert shifts[:, 0].std(axis=0) == pytest.approx(3, rel=0.1)
    np.testing.assert_array_equal(NBody(seed=1).clouds()["moved"].positions, moved.positions)


def test_a_batch_is_flattened_clouds():
    data = NBody(60, FEW, batch_size=7)
    data.setup()
    batch = next(iter(data.val_dataloader()))
    clouds = data.clouds()["validation"]
    assert (batch.batch_size, batch.features.shape, batch.batch.tolist()) == (
        20,
        (100, 3),
        [i for i in range(20) for _ in range(5)],
    )
    features = np.concatenate([clouds.charges[..., None], clouds.velocities], axis=-1).reshape(100, 3)
    torch.testing.assert_close(batch.features, torch.tensor(features).float())
    torch.testing.assert_close(batch.coords, torch.tensor(clouds.positions).float().reshape(100, 2))
    torch.testing.assert_close(batch.displacements, torch.tensor(clouds.displacements).float().reshape(100, 2))
    assert [b.batch_size for b in data.train_dataloader()] == [7] * 8
    assert len(data.test_dataloader()) == len(data.test_sets) == 2


def test_clouds_of_a_batch_may_have_unequal_sizes():
    samples = [(torch.randn(n, 3), torch.randn(n, 2), torch.randn(n, 2)) for n in (3, 1, 4)]
    batch = point_batch(samples)
    assert batch.batch.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert torch.equal(batch.coords[4:], samples[2][1])
    turns = torch.linalg.qr(torch.randn(3, 2, 2))[0]
    turned = batch.transformed(turns)
    assert torch.equal(turned.features[:, :1], batch.features[:, :1])
    for before, after in (
        (batch.features[:, 1:], turned.features[:, 1:]),
        (batch.coords, turned.coords),
        (batch.displacements, turned.displacements),
    ):
        torch.testing.assert_close(after[4:], before[4:] @ turns[2].T)
        torch.testing.assert_close(after[3], turns[1] @ before[3])


def test_the_order_of_batches_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        data = NBody(60, FEW, seed=seed, batch_size=10)
        data.setup()
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        torch.rand(1)  # other draws do not matter
        return torch.cat([batch.coords for batch in loader])

    assert torch.equal(order(0, 3), order(0, 3))
    assert not torch.equal(order(0, 3), order(0, 4))
    assert not torch.equal(order(0, 3), order(1, 3))
    assert torch.equal(order(0, 3).sort(dim=0).values, order(1, 4).sort(dim=0).values)


@pytest.mark.parametrize("size", [0, 61])
def test_training_sizes_out_of_range_are_refused(size):
    with pytest.raises(ValueError, match=f"expected 1 to 60 training clouds, got {size}"):
        NBody(size, FEW)
