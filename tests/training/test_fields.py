"""Regression of fields: its metric, and short trainings on a handful of flows."""

import pytest
import pytorch_lightning as pl
import torch

from escnn_attn import SteerableUNet, field_type, planar_gspace
from escnn_attn.data import Flow, TurbulenceConfig
from escnn_attn.training import FieldRegression, RelativeError, load_module

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

FEW = TurbulenceConfig(
    size=16, num_train=5, num_validation=2, num_test=12, num_intervals=3, num_steps=12, viscosity=0.02, peak=3.0
)
MODEL = {
    "_target_": "escnn_attn.SteerableUNet", "group": "D4", "in_type": {"vectors": 1, "pseudoscalars": 1},
    "out_fields": {"vectors": 1}, "channels": 2, "depth": 1,
}  # fmt: skip


def test_the_metric_is_the_mean_of_relative_errors_over_all_batches():
    targets = torch.randn(5, 2, 7, 3)
    scales = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    predictions = targets * (1 - scales[:, None, None, None])
    metric = RelativeError()
    assert metric(predictions[:2], targets[:2]).item() == pytest.approx(0.15)
    metric(predictions[2:], targets[2:])
    assert metric.compute().item() == pytest.approx(0.3)


def test_a_steerable_network_learns_flows_and_errs_alike_on_turned_ones(tmp_path):
    data = Flow(5, vorticity=True, simulation=FEW, batch_size=5)
    module = FieldRegression(MODEL, learning_rate=1e-2, test_sets=data.test_sets)
    data.setup()
    x, y = next(iter(data.test_dataloader()[0]))
    with torch.no_grad():
        untrained = RelativeError()(module.eval()(x), y).item()
    trainer = pl.Trainer(
        max_epochs=6, logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module.train(), data)
    test, turned = trainer.test(module, data, verbose=False)
    assert test["test/error"] < 0.8 * untrained
    assert turned["turned/error"] == pytest.approx(test["test/error"], rel=1e-4)
    trainer.save_checkpoint(tmp_path / "flow.ckpt")
    again = load_module(tmp_path / "flow.ckpt")
    assert type(again) is FieldRegression
    assert RelativeError()(again(x), y).item() == pytest.approx(test["test/error"], rel=1e-5)


def test_plain_networks_and_networks_of_either_kind_of_tensor_are_taken():
    x = torch.randn(2, 3, 8, 8)
    assert FieldRegression(torch.nn.Conv2d(3, 2, 1))(x).shape == (2, 2, 8, 8)
    module = FieldRegression({**MODEL, "group": "trivial"}).eval()
    fields = field_type(planar_gspace("trivial"), vectors=1, pseudoscalars=1)
    assert torch.equal(module(x), module.model(fields(x)).tensor)
    assert torch.equal(module.predict_step([x, x[:, :2]], 0), module.predict_step(x, 0))


def test_data_and_networks_that_do_not_fit_are_refused():
    module = FieldRegression(SteerableUNet("trivial", in_type=3, out_fields=2, channels=2, depth=1))
    with pytest.raises(ValueError, match="expected a model of 2 input channels, got one of 3"):
        module(torch.randn(1, 2, 8, 8))
    with pytest.raises(ValueError, match=r"predictions of shape \(1, 2, 4, 4\), as the targets, got \(1, 2, 8, 8\)"):
        module.loss(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4))
    with pytest.raises(TypeError, match=r"expected data of fields on a grid, such as data=flow, got a batch PointBatch|list"):
        module.inputs([torch.zeros(3, 2)])
    with pytest.raises(TypeError, match="got a list without such targets"):
        module.targets([torch.zeros(1, 3, 8, 8), torch.zeros(1)])
