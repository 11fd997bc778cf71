"""Transformer blocks to compare: ours, torch's, a block of escnn's modules, and a block with pairwise kernels."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from escnn_attn.fields import fourier_type, planar_gspace
from escnn_attn.models import SteerableStack, SteerableTransformerBlock
from escnn_attn.models.factories import steerable_block
from escnn_attn.nn import Disc, NoPosition, RotaryEmbedding, SteerableSelfAttention
from escnn_attn.nn.feedforward import BilinearFeedForward
from escnn_attn.nn.modules import TokenModule
from escnn_attn.tokens import Tokens, grid_of

import escnn.nn
import torch
import torch.nn.functional as F
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor, nn

from benchmarks.pairwise import pairwise_attention

Run = Callable[[], Tensor]
System = tuple[nn.Module, Run]


@dataclass(frozen=True)
class Setting:
    """Dimensions of the measured blocks and their input.

    Attributes:
        group: continuous group of the steerable blocks.
        max_frequency: band limit L.
        width: channels per token, a multiple of the size of a field.
        num_heads: number of heads.
        expansion: width of the hidden layer of torch's layer and of the block of escnn's modules, relative to `width`; steerable blocks have
            their own default.
        side: of the square grid of tokens.
        batch: number of samples.
        dtype: name of the floating-point type.
        device: cpu or cuda.
    """

    group: str = "SO2"
    max_frequency: int = 3
    width: int = 448
    num_heads: int = 8
    expansion: int = 4
    side: int = 14
    batch: int = 4
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def placement(self) -> tuple[str, torch.dtype]:
        """Device and type of parameters and inputs."""
        return self.device, getattr(torch, self.dtype)

    @property
    def field_type(self) -> FieldType:
        gspace = planar_gspace(self.group)
        size = fourier_type(gspace, 1, self.max_frequency).size
        if self.width % size:
            raise ValueError(f"expected a width that is a multiple of {size}, the size of a field, got {self.width}")
        return fourier_type(gspace, self.width // size, self.max_frequency)

    def image(self) -> Tensor:
        return torch.randn(self.batch, self.width, self.side, self.side).to(*self.placement).requires_grad_()

    def tokens(self) -> Tensor:
        """Input of a plain transformer, (b, t, width)."""
        return self.image().detach().flatten(2).mT.contiguous().requires_grad_()


class PairwiseAttention(SteerableSelfAttention):
    """Self-attention with a steerable kernel per pair of tokens."""

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        return pairwise_attention(self, tokens)


class EscnnBlock(nn.Module):
    """Pre-norm block of escnn's modules: 1×1 convolutions, pointwise ELU on 16 samples, and torch's attention."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        t = setting.field_type
        hidden = FieldType(t.gspace, list(t.representations) * setting.expansion)
        irreps = list(dict.fromkeys(t.representations[0].irreps))
        self.num_heads, self.fields, self.t = setting.num_heads, len(t), t
        self.norms = nn.ModuleList(escnn.nn.IIDBatchNorm2d(t) for _ in range(2))
        self.project_in = escnn.nn.R2Conv(t, FieldType(t.gspace, list(t.representations) * 3), 1)
        self.project_out = escnn.nn.R2Conv(t, t, 1)
        self.widen, self.narrow = escnn.nn.R2Conv(t, hidden, 1), escnn.nn.R2Conv(hidden, t, 1)
        self.pointwise = escnn.nn.FourierELU(t.gspace, len(hidden), irreps, type="regular", N=16)

    def forward(self, x: GeometricTensor) -> GeometricTensor:
        qkv = self.project_in(self.norms[0](x)).tensor
        heads = qkv.unflatten(1, (3, self.num_heads, -1)).flatten(4)
        q, k, v = heads.mT.contiguous().unbind(1)  # the fused kernel of a CPU takes channels that are adjacent alone
        mixed = F.scaled_dot_product_attention(q, k, v).mT.flatten(1, 2).unflatten(2, x.shape[2:])
        x = x + self.project_out(GeometricTensor(mixed.contiguous(), self.t))
        return x + self.narrow(self.pointwise(self.widen(self.norms[1](x))))


def steerable(
    setting: Setting, part: str = "block", compiled: bool = False, group: str | None = None, **options: object
) -> System:
    """Makes our block (or its `"attention"` alone) on tokens, and its forward pass, with options of `steerable_block`."""
    setting = setting if group is None else replace(setting, group=group)
    block = steerable_block(setting.field_type, **{"num_heads": setting.num_heads, **options})  # pyright: ignore
    return _on_tokens(SteerableStack([block if part == "block" else block.attention]), setting, compiled)  # pyright: ignore


def rotary(**options: Any) -> Callable[[Setting], System]:
    """Makes our block with options of its rotary embedding."""
    return partial(steerable, position=partial(RotaryEmbedding, **options))


def pairwise(setting: Setting) -> System:
    """Makes our block with attention by pairwise kernels."""
    t = setting.field_type
    attention = PairwiseAttention(t, num_heads=setting.num_heads)
    return _on_tokens(SteerableTransformerBlock(attention, BilinearFeedForward(t)), setting)


def _on_tokens(module: TokenModule, setting: Setting, compiled: bool = False) -> System:
    module = module.to(*setting.placement)
    if compiled:
        module.compile(fullgraph=True)
    image = setting.image()
    tokens = Tokens.on(grid_of(image), image, module.in_layout)
    leaves = tuple(f.detach().requires_grad_() for f in tokens.features)

    def run() -> Tensor:
        out = module.forward_tokens(tokens.with_features(leaves))
        return torch.stack([f.sum() for f in out.features])

    return module, run


def plain(setting: Setting, compiled: bool = False) -> System:
    """Makes torch's pre-norm encoder layer."""
    width, hidden = setting.width, setting.expansion * setting.width
    layer = nn.TransformerEncoderLayer(width, setting.num_heads, hidden, 0.0, "gelu", batch_first=True, norm_first=True)
    layer.to(*setting.placement)
    if compiled:
        layer.compile()
    x = setting.tokens()
    return layer, lambda: layer(x)


def plain_attention(setting: Setting) -> System:
    """Makes torch's multi-head attention."""
    layer = nn.MultiheadAttention(setting.width, setting.num_heads, batch_first=True).to(*setting.placement)
    x = setting.tokens()
    return layer, lambda: layer(x, x, x, need_weights=False)[0]


def of_escnn(setting: Setting) -> System:
    """Makes the block of escnn's modules, without positions."""
    block, x = EscnnBlock(setting).to(*setting.placement), setting.image()
    return block, lambda: block(GeometricTensor(x, block.t)).tensor


blind = partial(steerable, position=NoPosition)
wide = partial(steerable, feedforward=partial(BilinearFeedForward, expansion=4))
attention = partial(steerable, part="attention")
#: numerator and denominator of each ratio
PAIRS: dict[str, tuple[Callable[[Setting], System], Callable[[Setting], System]]] = {
    "block / torch's encoder layer": (steerable, plain),
    "block, expansion 4 / torch's encoder layer": (wide, plain),
    "attention / torch's attention": (attention, plain_attention),
    "block without position / block of escnn's modules": (blind, of_escnn),
    "block of escnn's modules / torch's encoder layer": (of_escnn, plain),
    "block of O(2) / of SO(2)": (partial(steerable, group="O2"), partial(steerable, group="SO2")),
}
#: ratios with a compiled numerator
COMPILED: dict[str, tuple[Callable[[Setting], System], Callable[[Setting], System]]] = {
    "compiled block / torch's encoder layer": (partial(steerable, compiled=True), plain),
    "compiled torch's encoder layer / eager": (partial(plain, compiled=True), plain),
    "compiled attention / torch's attention": (partial(attention, compiled=True), plain_attention),
    "compiled block without position / block of escnn's modules": (partial(blind, compiled=True), of_escnn),
}
#: a block with one choice that differs from the default, and the default
SWITCHES: dict[str, tuple[Callable[[Setting], System], Callable[[Setting], System]]] = {
    "Disc(3.0) / all tokens": (partial(steerable, neighborhood=Disc(3.0)), steerable),
    "NoPosition / RotaryEmbedding": (blind, steerable),
    "reach 1 / all tokens": (rotary(reach=1.0), steerable),
    "rotary_fraction 0.5 / 0.25": (rotary(rotary_fraction=0.5), steerable),
    "rotary_fraction 1 / 0.25": (rotary(rotary_fraction=1.0), steerable),
    "wavelengths from 12 / from 6": (rotary(wavelengths=(12.0, 60.0)), steerable),
    "tolerance 1e-2 / 1e-3": (rotary(tolerance=1e-2), steerable),
    "head_groups 1 / 4": (rotary(head_groups=1), steerable),
    "16 heads / 8": (partial(steerable, num_heads=16), steerable),
    "4 heads / 8": (partial(steerable, num_heads=4), steerable),
}
#: pairs that are measured with many tokens too
LARGE = frozenset(
    name
    for pairs in (PAIRS, COMPILED, SWITCHES)
    for name in pairs
    if name.endswith(("block / torch's encoder layer", "torch's attention", "all tokens"))
)
#: pairs that are measured in one setting alone
ONCE = frozenset({"block, expansion 4 / torch's encoder layer"})
#: systems for memory and construction
SYSTEMS: dict[str, Callable[[Setting], System]] = {
    "block": steerable,
    "torch's encoder layer": plain,
    "block without position": blind,
    "block of escnn's modules": of_escnn,
    "block of pairwise kernels": pairwise,
}
