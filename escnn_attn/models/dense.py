"""Networks from images to fields at every pixel."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from escnn.gspaces import GSpace
from escnn.nn import GeometricTensor
from torch import Tensor, nn
from typing_extensions import Unpack

from escnn_attn.compat import made_by_escnn, tend_filters
from escnn_attn.fields import as_field_type
from escnn_attn.fields.types import Fields
from escnn_attn.models._export import ExportedDenseNetwork
from escnn_attn.models.backbone import PyramidNetwork
from escnn_attn.models.decoder import FeaturePyramidDecoder
from escnn_attn.models.factories import steerable_block
from escnn_attn.models.pyramid import Stage
from escnn_attn.nn.modules import TokenModule
from escnn_attn.tokens import DomainOptions


class SteerableDenseTransformer(PyramidNetwork):
    r"""A steerable transformer from images to fields at every pixel: the stages of a backbone and a feature pyramid.

    For segmentation (`out_fields` a number of classes), vector fields such as flows (`{"vectors": 1}`), or any field type. Images
    may have any size; outputs turn exactly with quarter turns of an image (and the flips in the group), and as far as pixels allow with
    all rotations.

    Args:
        group: name of the group (see `planar_gspace`) or a gspace on the plane.
        in_type: fields of the input: a number of scalar channels, a mapping such as `{"scalars": 1, "vectors": 2}`, or a field type.
        out_fields: fields of the output, in the same ways.
        stages: those of `SteerableBackbone`.
        block: makes a block, as there.
        disc: whether only the largest centered disc of the image counts. What a network says at a pixel depends on all that it sees, and
            the corners of a square do not turn into it: with them, the outputs of an image and of a turned one differ near the border. Take it
            for pictures of single things, such as galaxies, and leave it for pieces of a larger whole.
        periodic: whether images repeat, as there.
        checkpointing: whether blocks are computed again for the gradient, in less memory.

    Shape:
        images (b, c, height, width), as a tensor or a geometric tensor of `in_type`, to a geometric tensor (b, c', height, width).

    Raises:
        TypeError: for types that are not on the gspace, and arguments of other types.
        ValueError: for a number out of its range.

    Examples:
        >>> import torch
        >>> from escnn_attn import Stage, SteerableDenseTransformer
        >>> stages = [Stage(2, depth=1, stride=2, radius=2.5, max_frequency=1), Stage(4, depth=1, max_frequency=1)]
        >>> model = SteerableDenseTransformer("SO2", in_type=3, out_fields={"scalars": 1, "vectors": 1}, stages=stages)
        >>> model(torch.randn(1, 3, 17, 24)).shape
        torch.Size([1, 3, 17, 24])
    """

    def __init__(
        self,
        group: str | GSpace,
        *,
        in_type: Fields = 3,
        out_fields: Fields,
        stages: str | Sequence[Stage | Mapping[str, Any]] = "tiny",
        block: Callable[..., TokenModule] = steerable_block,
        disc: bool = False,
        periodic: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(group, in_type, stages, block, disc, periodic, checkpointing)
        del self.blocks.norm  # the decoder has one for each stage
        types, gspace = self.blocks.types, self.in_type.gspace
        self.out_type = as_field_type(gspace, out_fields, "out_fields")
        pixel_type = types[0].index_select(list(range((len(types[0]) + 1) // 2)))
        self.decoder = made_by_escnn(
            lambda: FeaturePyramidDecoder(
                self.in_type, types, self.blocks.strides, pixel_type, self.out_type, "circular" if periodic else "zeros"
            )
        )
        tend_filters(self)

    def forward(self, x: Tensor | GeometricTensor, **options: Unpack[DomainOptions]) -> GeometricTensor:
        """Fields of `out_type` at every pixel, zero where a mask says that it does not count; the arguments are those of `TokenModule.forward`."""
        image, pixels = self.pixels_of(x, **options)
        features = self.blocks.plain(self.tokens_of(image, pixels))
        return pixels.geometric(self.decoder(image, features).flatten(2), self.out_type)

    def plain_readout(self) -> nn.Module:
        return self.decoder

    def export(self) -> nn.Module:
        return ExportedDenseNetwork(self.stem, self.blocks, self.decoder, self.disc, self.periodic)

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (input_shape[0], self.out_type.size, *input_shape[2:])
