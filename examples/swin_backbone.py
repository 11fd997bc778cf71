"""A backbone in the manner of Swin, put together from layers.

You will learn to chain a patch stem, stages of blocks and patch merging, and to take the features of each resolution. Swin attends in
square windows and shifts them in every second block, so that windows exchange what they know; but a grid of windows does not turn
with the image. Here each token attends in a disc about itself, which needs no shift: every second block sees a disc twice as wide.
"""

import time
from itertools import accumulate, cycle, islice

import escnn_attn as ea
from escnn_attn.data import Digits

import torch
from escnn.nn import FieldType, GeometricTensor


def stage(fields: FieldType, depth: int, window: float) -> ea.SteerableStack:
    """Blocks in turn of narrow discs (for Swin's windows) and of wide ones (for what its shifted windows are there for)."""
    radii = [window, 2 * window]
    return ea.SteerableStack(ea.steerable_block(fields, num_heads=2, neighborhood=ea.Disc(radii[i % 2])) for i in range(depth))


class SwinLike(ea.SequentialModule):
    """Two stages, at half and at a quarter of the resolution of a gray image."""

    def __init__(self, group: str, channels: int = 4, window: float = 2.5) -> None:
        space = ea.planar_gspace(group)
        fine, coarse = (ea.fourier_type(space, width, max_frequency=2) for width in (channels, 2 * channels))
        stem = ea.patch_stem(ea.field_type(space, scalars=1), fine, patch_size=2)
        merging, norm = ea.PatchMerging(fine, coarse), ea.SteerableRMSNorm(coarse)
        super().__init__(stem, stage(fine, 2, window), merging, stage(coarse, 2, window), norm)

    def forward_intermediates(self, images: torch.Tensor) -> list[GeometricTensor]:
        """The features of each stage, finest first."""
        found = list(accumulate(self, lambda x, module: module(x), initial=self.in_type(images)))[1:]
        return [x for x, module in zip(found, self, strict=True) if isinstance(module, ea.SteerableStack)]


class Classifier(torch.nn.Module):
    """Logits from the invariants of the coarsest features."""

    def __init__(self, backbone: SwinLike) -> None:
        super().__init__()
        self.backbone, self.pool = backbone, ea.InvariantPooling(backbone.out_type)
        self.readout = torch.nn.Linear(self.pool.out_type.size, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.readout(self.pool(self.backbone(self.backbone.in_type(images))).tensor)


def ready_made() -> ea.SteerableBackbone:
    """The backbone of the library, of the same widths; all discs of a stage are equal."""
    stages = [ea.Stage(c, depth=2, num_heads=2, stride=2, radius=2.5, max_frequency=2) for c in (4, 8)]
    return ea.SteerableBackbone("SO2", in_type=1, num_classes=10, stages=stages, disc=False)


def train(network: torch.nn.Module, data: Digits, steps: int) -> list[float]:
    optimizer, losses = torch.optim.Adam(network.train().parameters()), []
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for images, labels in islice(cycle(data.train_dataloader()), steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def main(steps: int = 60) -> dict[str, list[float]]:
    """Losses of each step."""
    torch.manual_seed(0)
    data, losses = Digits(batch_size=32), {}
    data.setup()
    swin = SwinLike("SO2")
    print("features of 64 × 96 pixels:", [tuple(f.shape) for f in swin.forward_intermediates(torch.rand(1, 1, 64, 96))])
    for name, network in {"Swin-like": Classifier(swin), "SteerableBackbone": ready_made()}.items():
        start, size = time.perf_counter(), sum(p.numel() for p in network.parameters())
        losses[name], passed = train(network, data, steps), time.perf_counter() - start
        images, labels = next(iter(data.test_dataloader()[1]))  # at random angles; those for training are upright
        with torch.no_grad():
            hits = (network.eval()(images).argmax(1) == labels).float()
        print(f"{name:18} {size:6,} parameters, {passed / steps:.2f} s a step, {hits.mean():.1%} of rotated digits")
    return losses


if __name__ == "__main__":
    main()
