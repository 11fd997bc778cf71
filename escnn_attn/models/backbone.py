"""Backbones of images: features at several resolutions, for classification, detection and segmentation."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from escnn.gspaces import GSpace
from escnn.nn import GeometricTensor
from torch import Tensor, nn
from typing_extensions import Self, Unpack

from escnn_attn.arguments import require_choice, require_flag, require_integer
from escnn_attn.compat import made_by_escnn
from escnn_attn.fields import as_field_type
from escnn_attn.fields.types import Fields
from escnn_attn.functional import invariants
from escnn_attn.models.factories import steerable_block
from escnn_attn.models.image import ImageNetwork
from escnn_attn.models.network import Body, LogitReadout, gspace_of
from escnn_attn.models.pyramid import Stage, SteerablePyramid, stages_of
from escnn_attn.models.stems import patch_stem
from escnn_attn.nn.modules import TokenModule
from escnn_attn.tokens import DomainOptions, Grid, Tokens, domain_of, require_input

OutputFormat = Literal["fields", "NCHW", "invariants"]
FORMATS = ("fields", "NCHW", "invariants")


class FeatureInfo(list[dict[str, Any]]):
    """What a backbone gives at each stage, as timm tells it: `num_chs`, `reduction` and `module`; and `num_invariants`."""

    def channels(self) -> list[int]:
        """Channels of the fields of each stage."""
        return [info["num_chs"] for info in self]

    def reduction(self) -> list[int]:
        """Pixels from token to token of each stage."""
        return [info["reduction"] for info in self]

    def invariants(self) -> list[int]:
        """Channels of the invariants of each stage."""
        return [info["num_invariants"] for info in self]


class PyramidNetwork(ImageNetwork):
    """Base class of networks with the stages of a backbone.

    Args:
        group: name of the group, or a gspace on the plane.
        in_type: fields of the input.
        stages: by name, or one by one.
        block: makes a block of a type, `num_heads` and `neighborhood`.
        disc: whether only the largest centered disc counts.
        periodic: whether images repeat.
        checkpointing: whether blocks are computed again for the gradient.
    """

    blocks: SteerablePyramid

    def __init__(
        self,
        group: str | GSpace,
        in_type: Fields,
        stages: str | Sequence[Stage | Mapping[str, Any]],
        block: Callable[..., TokenModule],
        disc: bool,
        periodic: bool,
        checkpointing: bool,
    ) -> None:
        if require_flag("periodic", periodic) and require_flag("disc", disc):
            raise ValueError("expected disc=False for periodic images, which have no corners to leave out, got disc=True")
        gspace, parts = gspace_of(group), stages_of(stages)
        fields, first = as_field_type(gspace, in_type), parts[0]
        mode = "circular" if periodic else "zeros"
        stem = partial(patch_stem, patch_size=first.stride, kernel_size=first.kernel_size, padding_mode=mode)
        blocks = made_by_escnn(lambda: SteerablePyramid(parts, gspace, block, require_flag("checkpointing", checkpointing)))
        made = made_by_escnn(lambda: stem(fields, blocks.in_type))
        super().__init__(Body(fields, made, blocks), None)
        self.disc, self.periodic, self.frozen_stages = disc, periodic, 0

    def intermediates(self, x: Tensor | GeometricTensor, **options: Unpack[DomainOptions]) -> list[Tokens]:
        """The tokens of each stage."""
        return self.blocks.intermediates(self.embed(x, **options))

    def freeze(self, stages: int) -> Self:
        """Keeps the stem and the first stages as they are, in eval mode and without gradients; 0 for none.

        Raises:
            ValueError: if there are fewer stages.
        """
        self.frozen_stages = require_integer("stages", stages, 0, len(self.blocks.stacks))
        self.requires_grad_(True)
        for part in self._frozen():
            part.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self._frozen():
            part.train(False)
        return self

    def _frozen(self) -> list[nn.Module]:
        if not self.frozen_stages:
            return []
        count, blocks = self.frozen_stages, self.blocks
        return [self.stem, *blocks.stacks[:count], *blocks.mergings[: count - 1]]


class SteerableBackbone(LogitReadout, PyramidNetwork):
    r"""A steerable transformer on coarser and coarser grids, for features at several resolutions and for logits.

    Stages of blocks at strides of 4, 8, 16 and 32 pixels, with attention in discs where tokens are many and between all where they are few,
    and a strided convolution before each, as in Swin (Liu et al., 2021). Images may have any size; features turn exactly with
    quarter turns of an image (and the flips in the group), and as far as pixels allow with all rotations.

    Args:
        group: name of the group (see `planar_gspace`) or a gspace on the plane.
        in_type: fields of the input: a number of scalar channels, a mapping such as `{"scalars": 1, "vectors": 2}`, or a field type.
        num_classes: number of logits; 0 for the pooled invariants themselves.
        stages: `"tiny"`, `"small"` or `"base"` (1, 5 and 20 million parameters), or a `Stage` or mapping of its attributes for each.
        block: makes a block of a type, `num_heads` and a `neighborhood`: `steerable_block`, or a partial of it or of another factory.
        disc: whether only the largest centered disc counts, of the image and of the tokens: the corners of a square do not rotate
            into it.
        periodic: whether images repeat, such as flows in a periodic box: sides must be multiples of all strides, every stage needs a
            `radius` of less than half its tokens, and `disc=False`.
        checkpointing: whether blocks are computed again for the gradient, in less memory.

    Shape:
        images (b, c, height, width), as a tensor or a geometric tensor of `in_type`, to logits (b, num_classes).

    Raises:
        TypeError: for types that are not on the gspace, and arguments of other types.
        ValueError: for a number out of its range.

    Examples:
        >>> import torch
        >>> from escnn_attn import SteerableBackbone, Stage
        >>> stages = [Stage(2, depth=1, stride=4, radius=2.5, max_frequency=1), Stage(4, depth=1, max_frequency=1)]
        >>> model = SteerableBackbone("SO2", in_type=3, stages=stages)
        >>> [f.tensor.shape for f in model.forward_intermediates(torch.randn(1, 3, 32, 48), intermediates_only=True)]
        [torch.Size([1, 6, 8, 12]), torch.Size([1, 12, 4, 6])]
        >>> model.feature_info.channels(), model.feature_info.reduction()
        ([6, 12], [4, 8])
    """

    def __init__(
        self,
        group: str | GSpace,
        *,
        in_type: Fields = 3,
        num_classes: int = 1000,
        stages: str | Sequence[Stage | Mapping[str, Any]] = "tiny",
        block: Callable[..., TokenModule] = steerable_block,
        disc: bool = True,
        periodic: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(group, in_type, stages, block, disc, periodic, checkpointing)
        self.make_readout(num_classes, least=0)

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels, pixels from token to token, and module of each stage."""
        return FeatureInfo(
            {
                "num_chs": t.size,
                "reduction": reduction,
                "module": f"blocks.stacks.{index}",
                "num_invariants": sum(len(rho.irreps) for rho in t.representations),
            }
            for index, (t, reduction) in enumerate(zip(self.blocks.types, self.blocks.reductions, strict=True))
        )

    def forward_intermediates(
        self,
        x: Tensor | GeometricTensor,
        indices: int | Sequence[int] | None = None,
        *,
        output_fmt: OutputFormat = "fields",
        intermediates_only: bool = False,
        **options: Unpack[DomainOptions],
    ) -> Any:
        """The features of stages, finest first, and before them those of the last stage after the final norm.

        Args:
            x: images.
            indices: the stages, or how many of the last; None for all.
            output_fmt: `"fields"` for geometric tensors, `"NCHW"` for their plain tensors, `"invariants"` for plain tensors of the norms
                of irreps, which stay as they are where an image turns about its tokens.
            intermediates_only: whether to leave out the features before them.
            **options: those of `TokenModule.forward`.

        Raises:
            ValueError: if there is no such stage or format.
        """
        require_choice("output_fmt", output_fmt, FORMATS)
        chosen = self._indices(indices)
        found = self.intermediates(x, **options)
        features = [self._formatted(found[index], index, output_fmt) for index in chosen]
        if intermediates_only:
            return features
        return self._formatted(self.blocks.norm(found[-1]), -1, output_fmt), features

    def forward_features(self, x: Tensor | GeometricTensor, **options: Unpack[DomainOptions]) -> GeometricTensor:
        """The features of the last stage, after the final norm."""
        return self.forward_intermediates(x, [], **options)[0]

    def forward_head(self, x: GeometricTensor, **options: Unpack[DomainOptions]) -> Tensor:
        """Logits of what `forward_features` gives.

        Args:
            x: features at the tokens of the last stage.
            **options: those of `TokenModule.forward`, such as a mask, at these tokens.

        Raises:
            TypeError: if x is not a grid of fields of the last stage.
        """
        grid = domain_of(require_input(x, self.blocks.out_type, self), **options)
        if not isinstance(grid, Grid):
            raise TypeError(f"expected features on a grid, got those of {type(grid).__name__}")
        return self.readout(self.pool(Tokens.on(grid.disc() if self.disc else grid, x.tensor, self.blocks.layouts[-1])))

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the linear map to the logits by a new one; 0 for the pooled invariants themselves."""
        like = next(self.pool.parameters(), next(self.parameters()))
        self.make_readout(num_classes, least=0)
        self.to(dtype=like.dtype, device=like.device)
        self.reconfigure(num_classes=num_classes)

    def _indices(self, indices: int | Sequence[int] | None) -> list[int]:
        count = len(self.blocks.types)
        if indices is None or isinstance(indices, int):
            taken = count if indices is None else require_integer("indices", indices, 1, count)
            return list(range(count - taken, count))
        return [require_integer("indices", index, -count, count - 1) % count for index in indices]

    def _formatted(self, tokens: Tokens, index: int, output_fmt: OutputFormat) -> GeometricTensor | Tensor:
        layout = self.blocks.layouts[index]
        if output_fmt == "invariants":
            values = invariants(tokens.features, layout.irreps.trivial).mT
            mask = tokens.domain.mask
            return tokens.domain.unpad(values if mask is None else values.masked_fill(~mask[:, None], 0))
        fields = tokens.plain(layout)
        return GeometricTensor(fields, self.blocks.types[index]) if output_fmt == "fields" else fields
