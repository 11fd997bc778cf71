"""Transformers of images."""

import copy
from collections.abc import Sequence

from escnn.group import GroupElement
from escnn.gspaces import GSpace
from escnn.nn import GeometricTensor
from torch import Tensor, nn
from typing_extensions import Self, Unpack

from escnn_attn.arguments import require_integer, require_items
from escnn_attn.fields.types import Fields
from escnn_attn.models._export import ExportedNetwork, crop
from escnn_attn.models.block import SteerableStack
from escnn_attn.models.network import BlockFactory, Body, FieldReadout, LogitReadout, SteerableNetwork, StemFactory, make_body
from escnn_attn.models.stems import attends, convolution_stem
from escnn_attn.nn.convolution import SteerableConvolution
from escnn_attn.nn.neighborhood import KNearest
from escnn_attn.nn.resampling import AntialiasedPooling
from escnn_attn.testing import check_equivariance
from escnn_attn.tokens import DomainOptions, Grid, Tokens, domain_of, require_input
from escnn_attn.tokens.windows import coarse_grid, fitting_side, keeps_center, remedies, stride_of, windows_of


class ImageNetwork(SteerableNetwork):
    """Base class of networks of images.

    Args:
        body: stem and blocks.
        image_size: side of the images, or height and width, to be checked at once with a stem of your own; None for a check of each image.
    """

    #: whether only the largest centered disc counts, of the image and of the tokens
    disc: bool
    #: whether images repeat: their opposite borders are beside each other
    periodic = False

    def __init__(self, body: Body, image_size: int | Sequence[int] | None) -> None:
        super().__init__(body)
        self.windows = windows_of(body.stem)
        #: between tokens; less than 1 once they are `refined`
        self.spacing = 1.0
        if image_size is not None:
            sides = require_items("image_size", image_size, 2) if isinstance(image_size, Sequence) else [image_size] * 2
            self._require_centered(*(require_integer("image_size", side) for side in sides))

    def embed(self, x: Tensor | GeometricTensor, **options: Unpack[DomainOptions]) -> Tokens:
        return self.tokens_of(*self.pixels_of(x, **options))

    def pixels_of(self, x: Tensor | GeometricTensor, **options: Unpack[DomainOptions]) -> tuple[Tensor, Grid]:
        """The images (b, c, height, width), zero where they do not count, and their grid; the arguments are those of `forward`."""
        if isinstance(x, Tensor):
            if x.dim() != 4 or x.shape[1] != self.in_type.size:
                raise ValueError(
                    f"expected images (b, {self.in_type.size}, height, width), or a GeometricTensor, got a tensor {tuple(x.shape)}"
                )
            x = GeometricTensor(x, self.in_type)
        pixels = domain_of(require_input(x, self.in_type, self), **{"periodic": self.periodic, **options})
        if not isinstance(pixels, Grid):
            raise TypeError(
                f"a {type(self).__name__} takes images, not a cloud: take a SteerablePointTransformer or SteerablePointClassifier"
            )
        if (pixels.cell is not None) != self.periodic:
            raise ValueError(
                f"expected periodic={self.periodic}, which the stem of this {type(self).__name__} is made for, got {not self.periodic}"
            )
        self._require_centered(pixels.height, pixels.width)
        if (pixels.mask is not None or pixels.quadrature_weights is not None) and attends(self.stem):
            raise ValueError("masks and quadrature weights are not defined for a stem with attention inside")
        image = x.tensor if pixels.mask is None else x.tensor.masked_fill(~pixels.unpad(pixels.mask[:, None]), 0)
        return crop(image) if self.disc else image, pixels

    def tokens_of(self, image: Tensor, pixels: Grid) -> Tokens:
        """The tokens that the stem makes of what `pixels_of` gives."""
        made = self.stem(GeometricTensor(image, self.in_type)).tensor
        grid = coarse_grid(made, pixels, stride_of(self.windows), self.spacing)
        return Tokens.on(grid.disc() if self.disc else grid, made, self.blocks.in_layout)

    def refined(self, factor: int = 2) -> Self:
        """A copy in eval mode with the same weights, whose tokens are `factor` times as dense: the last stride of the stem is divided by it.

        Attention and means over tokens are sums for integrals over the plane, which factor² as many tokens come nearer to, so that outputs
        change less when an image turns. What is saved is not the copy but the network, to be refined again.

        Raises:
            TypeError: if the factor is no integer, or the network has several resolutions.
            ValueError: if it does not divide the last stride, that of a `SteerableConvolution` or `AntialiasedPooling`, a layer attends to
                a number of tokens (`KNearest`), or the stem attends after its last stride.
        """
        if any(isinstance(getattr(module, "neighborhood", None), KNearest) for module in self.modules()):
            raise ValueError("expected neighborhoods of a fixed size to refine tokens, such as Disc, got KNearest")
        if not isinstance(self.blocks, SteerableStack):
            raise TypeError(f"expected a network of one resolution to refine tokens, got a {type(self).__name__}")
        finer = copy.deepcopy(self).eval()
        factor, last, modules = require_integer("factor", factor), windows_of(finer.stem)[-1:], list(finer.stem.modules())
        strided = [module for module in modules if isinstance(module, SteerableConvolution | AntialiasedPooling)]
        behind = nn.ModuleList(modules[modules.index(strided[-1]) :] if strided else [])  # at the tokens that become denser
        if not strided or last != windows_of(strided[-1]) or last[0].stride % factor or attends(behind):
            part = "the last stride of the stem, of a SteerableConvolution or AntialiasedPooling with no attention behind it"
            raise ValueError(f"expected a factor that divides {part}, got factor={factor} and {self.stem}")
        strided[-1].stride //= factor
        finer.windows, finer.spacing = windows_of(finer.stem), self.spacing / factor
        vars(finer)["_made"] = "a network with refined tokens has no configuration: save the one that it was refined of"
        return finer

    def _require_centered(self, *sides: int) -> None:
        """Raises a ValueError where strides of escnn's modules in the stem would move the rotation center off the coarser grid."""
        if self.in_type.fibergroup.order() == 1 or all(keeps_center(self.windows, side) for side in sides):
            return
        fitting = [fitting_side(self.windows, side) for side in sides]
        advice = ["no size fits its windows"]
        if None not in fitting:
            advice = [
                f"resample them to {' × '.join(map(str, fitting))} about their center (padding on one side would move it)"
            ]
        change = remedies(self.windows, sides)
        if change is not None:
            advice.append(f"or take a stem with {change}")
        raise ValueError(
            f"images of {' × '.join(map(str, sides))} lose their rotation center under the strides of the stem "
            f"({stride_of(self.windows)} in all): {', '.join(advice)}"
        )

    def export(self) -> nn.Module:
        """A copy in eval mode that maps plain images (b, c, height, width) to logits, or to fields (b, c', height', width').

        For `torch.export`, `torch.onnx.export(…, dynamo=True)` and `torch.jit.trace`, of any batch. The first two take any height and
        width where `dynamic_shapes` keeps them open: then `RotaryEmbedding` of a continuous group needs a `max_distance` or a `Disc`,
        and `Disc` and `KNearest` are masks over all pairs. It holds no field types. With strided modules of escnn in the stem, sizes
        whose center they keep are the caller's to choose; no other stem asks for that.
        """
        return ExportedNetwork(self.stem, self.blocks, self.plain_readout(), self.disc, self.periodic, self.spacing)

    def check_equivariance(self, atol: float = 1e-7, rtol: float = 1e-5) -> list[tuple[GroupElement, float]]:
        """Checks quarter turns and flips of images; see `PlanarModule.check_equivariance`."""
        return check_equivariance(self, rtol, domain="grid")


class SteerableTransformer(LogitReadout, ImageNetwork):
    r"""A steerable transformer from images to invariant logits: stem, transformer blocks, pooling, and a linear read-out.

    Logits are invariant exactly under quarter turns of an image (and the flips in the group), and as far as pixels allow under
    all rotations. Only the largest centered disc counts, of the image and of the tokens: the corners of a square do not rotate
    into it. With `group="trivial"` the same code is a plain transformer.

    Args:
        group: name of the group (see `planar_gspace`) or a gspace on the plane.
        in_type: fields of the input: a number of scalar channels, a mapping such as `{"scalars": 1, "vectors": 2}` (see
            `field_type`), or a field type.
        num_classes: number of logits.
        channels: width, in functions on the group.
        max_frequency: band limit L of the functions, for continuous groups alone; 3 by default.
        depth: number of blocks.
        block: makes a block of a type: `steerable_block`, or `functools.partial` of it or of another factory.
        stem: makes the stem of the input type and the token type: `convolution_stem`, a partial of it, or another.
        image_size: side of the images, or height and width, to be checked at once with a stem of your own; None for a check of each image.
        checkpointing: whether blocks are computed again for the gradient, in less memory.

    Shape:
        images (b, c, height, width), as a tensor or a geometric tensor of `in_type`, to logits (b, num_classes), of any height
        and width.

    Raises:
        TypeError: for types that are not on the gspace.
        ValueError: for a max_frequency of a finite group; with strided convolutions or pooling of escnn in a stem of your own alone, for
            images whose rotation center those would lose, naming the next size that fits.

    Examples:
        >>> import torch
        >>> from escnn_attn import SteerableTransformer
        >>> model = SteerableTransformer("SO2", channels=4, max_frequency=1, depth=1)
        >>> model(torch.randn(2, 1, 29, 29)).shape
        torch.Size([2, 10])
    """

    disc = True
    blocks: SteerableStack

    def __init__(
        self,
        group: str | GSpace,
        *,
        in_type: Fields = 1,
        num_classes: int = 10,
        channels: int = 16,
        max_frequency: int | None = None,
        depth: int = 3,
        block: BlockFactory | None = None,
        stem: StemFactory = convolution_stem,
        image_size: int | Sequence[int] | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(make_body(group, in_type, channels, max_frequency, depth, block, stem, checkpointing), image_size)
        self.make_readout(num_classes)


class SteerableFieldTransformer(FieldReadout, ImageNetwork):
    r"""A steerable transformer from images to fields at each token: stem, transformer blocks, and an equivariant linear map.

    Equivariant exactly under quarter turns of an image (and the flips in the group), and as far as pixels allow under all
    rotations.

    Args:
        group: name of the group (see `planar_gspace`) or a gspace on the plane.
        in_type: fields of the input, as in `SteerableTransformer`.
        out_fields: fields of the output, in the same ways.
        channels: width, in functions on the group.
        max_frequency: band limit L of the functions, for continuous groups alone; 3 by default.
        depth: number of blocks.
        block: makes a block of a type, as there.
        stem: makes the stem, as there.
        image_size: side of the images, or height and width, to be checked at once with a stem of your own; None for a check of each image.
        checkpointing: whether blocks are computed again for the gradient, in less memory.

    Shape:
        images (b, c, height, width), as a tensor or a geometric tensor of `in_type`, to a geometric tensor (b, c', height', width') on the tokens
        of the stem, of any height and width.

    Raises:
        TypeError: for types that are not on the gspace.
        ValueError: as `SteerableTransformer`.

    Examples:
        >>> import torch
        >>> from escnn_attn import SteerableFieldTransformer
        >>> model = SteerableFieldTransformer("SO2", out_fields={"vectors": 1}, channels=4, max_frequency=1, depth=1)
        >>> model(torch.randn(2, 1, 29, 29)).shape
        torch.Size([2, 2, 8, 8])
    """

    disc = False
    blocks: SteerableStack

    def __init__(
        self,
        group: str | GSpace,
        *,
        in_type: Fields = 1,
        out_fields: Fields,
        channels: int = 16,
        max_frequency: int | None = None,
        depth: int = 3,
        block: BlockFactory | None = None,
        stem: StemFactory = convolution_stem,
        image_size: int | Sequence[int] | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(make_body(group, in_type, channels, max_frequency, depth, block, stem, checkpointing), image_size)
        self.make_readout(out_fields)
