"""Attention between two blocks of a steerable CNN that you already have.

You will learn to put an attention layer between two modules of escnn. A trained network keeps its weights and at first its outputs;
more steps then train the attention too. The same code serves C_8 and SO(2): only fields and pointwise nonlinearity differ.
"""

from itertools import cycle, islice

from escnn_attn import SteerableRMSNorm, SteerableSelfAttention, TokenModule, Tokens
from escnn_attn.data import Digits

import torch
from escnn import gspaces, nn


class ResidualAttention(TokenModule):
    """x + attention(norm(x)), with a gain of zero at first, so that the layer starts as the identity."""

    def __init__(self, fields: nn.FieldType) -> None:
        super().__init__(fields, fields)
        self.norm, self.attention = SteerableRMSNorm(fields), SteerableSelfAttention(fields, num_heads=4)
        torch.nn.init.zeros_(self.attention.gain)

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        return tokens + self.attention(self.norm(tokens))


def block(convolution: nn.R2Conv, pointwise: nn.EquivariantModule) -> nn.SequentialModule:
    return nn.SequentialModule(convolution, nn.IIDBatchNorm2d(convolution.out_type), pointwise)


class DigitNetwork(torch.nn.Module):
    """Three blocks of escnn, between the last two of them attention or nothing, and logits from invariant fields."""

    def __init__(self, gspace: gspaces.GSpace2D, attention: bool = False) -> None:
        super().__init__()
        if gspace.fibergroup.continuous:  # 8 functions on the circle, up to frequency 3
            pointwise = nn.FourierELU(gspace, 8, irreps=[(0,), (1,), (2,), (3,)], N=16)
        else:
            pointwise = nn.ELU(nn.FieldType(gspace, 8 * [gspace.regular_repr]))
        fields = pointwise.in_type
        self.image, invariant = (nn.FieldType(gspace, count * [gspace.trivial_repr]) for count in (1, 32))
        self.block1 = block(nn.R2Conv(self.image, fields, 7, stride=2, padding=3), pointwise)
        self.block2 = block(nn.R2Conv(fields, fields, 5, stride=2, padding=2), pointwise)
        self.attention = ResidualAttention(fields) if attention else nn.IdentityModule(fields)  # the new line
        self.block3 = block(nn.R2Conv(fields, invariant, 5, padding=2), nn.ELU(invariant))
        self.readout = torch.nn.Sequential(torch.nn.BatchNorm1d(32), torch.nn.Linear(32, 10))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.block3(self.attention(self.block2(self.block1(self.image(pixels)))))
        return self.readout(x.tensor.mean(dim=(2, 3)))


def train(network: torch.nn.Module, data: Digits, steps: int) -> None:
    optimizer = torch.optim.Adam(network.train().parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for pixels, labels in islice(cycle(data.train_dataloader()), steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(pixels), labels).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def report(name: str, network: torch.nn.Module, data: Digits) -> torch.Tensor:
    """Prints parameters, accuracy, and by how much logits change under a quarter turn; returns the logits."""
    pixels, labels = next(iter(data.test_dataloader()[1]))  # at random angles; those for training are upright
    logits, turned = (network.eval()(images) for images in (pixels, pixels.rot90(1, (2, 3))))
    size, hits = sum(p.numel() for p in network.parameters()), (logits.argmax(1) == labels).float().mean()
    change = (turned - logits).norm() / logits.norm()
    print(f"{name:35} {size:6,} parameters, {hits:.1%} of rotated digits, quarter turns change logits by {change:.0e}")
    return logits


def main(steps: int = 80) -> None:
    data = Digits(batch_size=32)
    data.setup()
    for group, gspace in {"C_8": gspaces.rot2dOnR2(8), "SO(2)": gspaces.rot2dOnR2(-1)}.items():
        torch.manual_seed(0)
        network, extended = DigitNetwork(gspace), DigitNetwork(gspace, attention=True)
        train(network, data, steps)
        extended.load_state_dict(network.state_dict(), strict=False)  # all but the new layer
        torch.testing.assert_close(report(f"{group}, trained", network, data), report(f"{group}, put in", extended, data))
        for name, one in (("without", network), ("with", extended)):
            train(one, data, steps)
            report(f"{group}, trained on {name} attention", one, data)


if __name__ == "__main__":
    main()
