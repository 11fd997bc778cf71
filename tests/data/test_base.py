"""The number of training samples, and the size of their batches."""

from types import SimpleNamespace

import pytest

from escnn_attn.data import Digits


def test_a_batch_of_more_than_the_training_samples_is_refused_before_a_fit():
    data = Digits(batch_size=3001)
    message = r"^expected a batch_size of at most the 3000 training samples, got 3001: take data\.batch_size=3000$"
    with pytest.raises(ValueError, match=message):
        data.setup("fit")
    data.setup("test")  # evaluation takes any number
    with pytest.raises(ValueError, match=message):
        data.train_dataloader()
    Digits(batch_size=3000).setup("fit")


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_every_process_refuses_a_batch_of_more_than_its_samples(rank):
    for size in (750, 751):
        data = Digits(batch_size=size)
        data.trainer = SimpleNamespace(world_size=4, global_rank=rank)
        if size == 750:
            data.setup("fit")
            continue
        with pytest.raises(ValueError, match=r"at most the 750 training samples of each of 4 processes, got 751: take data\.b"):
            data.setup("fit")
