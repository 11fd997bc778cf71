"""Random draws of batches, and recorded steps."""

import pytest
import pytorch_lightning as pl
import torch

from escnn_attn.training import CudaGraph, ImageClassifier
from tests.training.test_training import MODEL, fit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


class Draw(pl.Callback):
    """Notes a random number of each batch."""

    def __init__(self):
        self.drawn = []

    def on_train_batch_start(self, *_):
        self.drawn.append(torch.rand(()).item())


def test_batches_of_one_step_draw_differently(tmp_path):
    draw = Draw()
    fit(tmp_path, 2, callbacks=[draw], accumulate_grad_batches=2)
    assert len(draw.drawn) == len(set(draw.drawn)) == 8


def test_a_recorded_step_refuses_to_accumulate_gradients(tmp_path):
    with pytest.raises(ValueError, match="expected accumulate_grad_batches=1 for CudaGraph, got 2"):
        fit(tmp_path, 1, callbacks=[CudaGraph()], accumulate_grad_batches=2)


def test_a_recorded_step_is_forgotten_when_training_breaks():
    module, callback = ImageClassifier(MODEL), CudaGraph()
    module.model.forward, callback._recorded = (lambda x: x), True
    callback.on_exception(None, module, KeyboardInterrupt())
    assert "forward" not in vars(module.model)
    assert not callback._recorded
