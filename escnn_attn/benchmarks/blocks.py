"""Transformer blocks side by side: ours, torch's, and one built of escnn's own modules."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import escnn.nn
import torch
import torch.nn.functional as F
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from escnn_attn.blocks import steerable_block
from escnn_attn.feedforward import BilinearFeedForward
from escnn_attn.fields import fourier_type, planar_gspace
from escnn_attn.positions import NoPosition
from escnn_attn.tokens import grid_tokens

Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Setting:
    """What is measured: blocks of one width, heads, expansion and number of tokens.

    Attributes:
        group: of the steerable blocks, continuous.
        max_frequency: band limit L.
        width: channels of a token, a multiple of the size of a field.
        heads: number of heads.
        expansion: width of the hidden layer of the feed-forward, relative to `width`.
        side: tokens are side × side.
        batch: samples.
    """

    group: str = "SO2"
    max_frequency: int = 3
    width: int = 448
    heads: int = 8
    expansion: int = 4
    side: int = 14
    batch: int = 4

    @property
    def field_type(self) -> FieldType:
        gspace = planar_gspace(self.group)
        size = fourier_type(gspace, 1, self.max_frequency).size
        if self.width % size:
            raise ValueError(f"expected a width that is a multiple of {size}, the size of a field, got {self.width}")
        return fourier_type(gspace, self.width // size, self.max_frequency)

    def image(self) -> Tensor:
        return torch.randn(self.batch, self.width, self.side, self.side, requires_grad=True)


class EscnnBlock(nn.Module):
    """A pre-norm block as a user of escnn would write it: 1×1 convolutions, pointwise ELU on 16 samples, torch's attention."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        t = setting.field_type
        hidden = FieldType(t.gspace, list(t.representations) * setting.expansion)
        irreps = list(dict.fromkeys(t.representations[0].irreps))
        self.heads, self.fields, self.t = setting.heads, len(t), t
        self.norms = nn.ModuleList(escnn.nn.IIDBatchNorm2d(t) for _ in range(2))
        self.project_in = escnn.nn.R2Conv(t, FieldType(t.gspace, list(t.representations) * 3), 1)
        self.project_out = escnn.nn.R2Conv(t, t, 1)
        self.widen, self.narrow = escnn.nn.R2Conv(t, hidden, 1), escnn.nn.R2Conv(hidden, t, 1)
        self.pointwise = escnn.nn.FourierELU(t.gspace, len(hidden), irreps, type="regular", N=16)

    def forward(self, x: GeometricTensor) -> GeometricTensor:
        qkv = self.project_in(self.norms[0](x)).tensor
        q, k, v = qkv.unflatten(1, (3, self.heads, -1)).flatten(4).mT.unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v).mT.flatten(1, 2).unflatten(2, x.shape[2:])
        x = x + self.project_out(GeometricTensor(mixed.contiguous(), self.t))
        return x + self.narrow(self.pointwise(self.widen(self.norms[1](x))))


def steerable(setting: Setting, part: str = "block", **options: object) -> tuple[nn.Module, Run]:
    """Our block (or its `"attention"` alone) on tokens, and its forward pass; options are those of `steerable_block`."""
    feedforward = partial(BilinearFeedForward, expansion=setting.expansion)
    block = steerable_block(setting.field_type, heads=setting.heads, **{"feedforward": feedforward, **options})  # pyright: ignore
    module = block if part == "block" else block.attention
    tokens = grid_tokens(setting.image(), block.in_layout)
    leaves = tuple(f.detach().requires_grad_() for f in tokens.features)

    def run() -> Tensor:
        out = module.forward_tokens(tokens.with_features(leaves))  # pyright: ignore
        return torch.cat([f.flatten() for f in out.features])

    return module, run


def plain(setting: Setting) -> tuple[nn.Module, Run]:
    """torch's pre-norm encoder layer."""
    width = setting.width
    layer = nn.TransformerEncoderLayer(
        width, setting.heads, setting.expansion * width, 0.0, "gelu", batch_first=True, norm_first=True
    )
    x = setting.image().detach().flatten(2).mT.contiguous().requires_grad_()
    return layer, lambda: layer(x)


def plain_attention(setting: Setting) -> tuple[nn.Module, Run]:
    """torch's multi-head attention."""
    layer = nn.MultiheadAttention(setting.width, setting.heads, batch_first=True)
    x = setting.image().detach().flatten(2).mT.contiguous().requires_grad_()
    return layer, lambda: layer(x, x, x, need_weights=False)[0]


def of_escnn(setting: Setting) -> tuple[nn.Module, Run]:
    """The block of escnn's modules, without positions."""
    block, x = EscnnBlock(setting), setting.image()
    return block, lambda: block(GeometricTensor(x, block.t)).tensor


SYSTEMS: dict[str, tuple[Callable[..., tuple[nn.Module, Run]], Callable[..., tuple[nn.Module, Run]]]] = {
    "block / torch encoder layer": (steerable, plain),
    "attention / torch attention": (partial(steerable, part="attention"), plain_attention),
    "block without position / of escnn": (partial(steerable, position=NoPosition), of_escnn),
    "block with escnn / torch": (of_escnn, plain),
}


def compare(name: str, setting: Setting, rounds: int = 9) -> dict[str, float]:
    """Medians of the ratio of two systems of `SYSTEMS`, timed in turn, with their quartiles; and of parameters and FLOPs.

    Args:
        name: of the pair.
        setting: what is measured.
        rounds: times each is run, after one to warm up.
    """
    torch.manual_seed(0)
    (ours, run), (theirs, other) = (make(setting) for make in SYSTEMS[name])
    row: dict[str, float] = {"parameters": _count(ours) / _count(theirs), "flops": _flops(run) / _flops(other)}
    for what, step in (("forward and backward", _train), ("forward", _forward)):
        ratios = []
        for index in range(rounds + 1):
            first, second = _seconds(partial(step, run)), _seconds(partial(step, other))
            if index:
                ratios.append(first / second)
        low, row[what], high = statistics.quantiles(ratios, n=4)
        row[f"{what}, spread"] = high - low
    return row


def _train(run: Run) -> None:
    run().sum().backward()


def _forward(run: Run) -> None:
    with torch.no_grad():
        run()


def _seconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _flops(run: Run) -> int:
    """Multiplications and additions of a forward and a backward pass in train mode (the counter sees no fused attention)."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run().sum().backward()
    return counter.get_total_flops()
