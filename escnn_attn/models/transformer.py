"""Whole networks, built from plain numbers and names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from escnn.group import GroupElement
from escnn.gspaces import GSpace
from escnn.nn import EquivariantModule, FieldType, GeometricTensor
from torch import Tensor, nn

from escnn_attn.compat import one_state_dict
from escnn_attn.fields.types import Fields, as_field_type, fourier_type, planar_gspace, require_planar
from escnn_attn.models.blocks import SteerableStack
from escnn_attn.models.factories import steerable_block
from escnn_attn.models.stems import convolution_stem, fitting_side, keeps_center, stride_of
from escnn_attn.nn._export import ExportedTransformer
from escnn_attn.nn.linear import SteerableLinear
from escnn_attn.nn.modules import TokenModule
from escnn_attn.nn.norm import SteerableRMSNorm
from escnn_attn.nn.pooling import InvariantPooling
from escnn_attn.pretrained import load_pretrained
from escnn_attn.testing import assert_equivariant, stated_tolerance
from escnn_attn.tokens.domains import Domain, disc_window, domain_of
from escnn_attn.tokens.tokens import Tokens, disc_tokens, require_mask, require_type, require_weights, to_tokens


class SteerableTransformer(EquivariantModule):
    r"""A steerable transformer: stem, transformer blocks, and a read-out of invariants or of fields.

    Takes images or point clouds, and gives invariant logits of each sample, or fields at each token. Equivariance holds
    exactly under quarter turns of an image (and the flips in the group), as far as pixels allow under all rotations, and
    exactly on clouds. For logits of an image only the largest centerd disc counts, of the image and of the tokens: the
    corners of a square do not rotate into it. With `group="trivial"` the same code is a plain transformer.

    Args:
        group: name of the group (see `planar_gspace`) or a gspace on the plane.
        in_type: fields of the input: a number of scalar channels, a mapping such as `{"scalars": 1, "vectors": 2}` (see
            `field_type`), or a field type.
        out_type: a number of invariant logits, or the fields to give at each token, as a mapping or a field type.
        channels: width, in functions on the group.
        max_frequency: band limit L of the functions, for continuous groups.
        depth: number of blocks.
        block: makes a block of a type: `steerable_block`, or `functools.partial` of it or of another factory.
        stem: makes the stem of the input type and the token type: `convolution_stem`, for images, or a partial of it;
            `SteerableLinear`, for clouds; or another.

    Shape:
        images (b, c, h, w), as a tensor or a geometric tensor of `in_type`, or points (points, c) with coords, to logits
        (b, out_type), or to fields (b, c', h', w') of the tokens of the stem, or (points, c'). Unless the group is
        trivial, h and w must be sides on which the strides of the stem keep the center (4 n + 1, by default).

    Raises:
        TypeError: for types that are not on the gspace.
        ValueError: for images of a shape with which strides would lose the rotation center, naming the next that will do.

    Examples:
        >>> import torch
        >>> from escnn_attn import SteerableLinear, SteerableTransformer
        >>> model = SteerableTransformer("SO2", channels=4, max_frequency=1, depth=1)
        >>> model(torch.randn(2, 1, 29, 29)).shape
        torch.Size([2, 10])
        >>> forces = SteerableTransformer(
        ...     "O2", in_type={"scalars": 1}, out_type={"vectors": 1}, channels=4, max_frequency=1, depth=1, stem=SteerableLinear
        ... )
        >>> forces(forces.in_type(torch.randn(7, 1), torch.randn(7, 2))).shape
        torch.Size([7, 2])
    """

    in_type: FieldType
    out_type: FieldType
    takes_context = True

    def __init__(
        self,
        group: str | GSpace,
        *,
        in_type: Fields = 1,
        out_type: Fields = 10,
        channels: int = 16,
        max_frequency: int = 3,
        depth: int = 3,
        block: Callable[[FieldType], TokenModule] | None = None,
        stem: Callable[[FieldType, FieldType], EquivariantModule] | None = None,
    ) -> None:
        super().__init__()
        gspace = planar_gspace(group) if isinstance(group, str) else group
        token_type = fourier_type(gspace, channels, max_frequency if gspace.fibergroup.continuous else None)
        require_planar(token_type)
        self.in_type = as_field_type(gspace, in_type)
        self.stem = (stem or convolution_stem)(self.in_type, token_type)
        blocks = [(block or steerable_block)(token_type) for _ in range(depth)]
        self.blocks = SteerableStack([*blocks, SteerableRMSNorm(token_type)])
        if isinstance(out_type, int):
            if out_type < 1:
                raise ValueError(f"expected at least one logit, got {out_type}")
            self.pool = InvariantPooling(token_type)
            self.readout = nn.Linear(self.pool.out_type.size, out_type)
            self.out_type = FieldType(self.pool.out_type.gspace, [self.pool.out_type.gspace.trivial_repr] * out_type)
        else:
            self.pool = None
            self.readout = SteerableLinear(token_type, as_field_type(gspace, out_type))
            self.out_type = self.readout.out_type
        one_state_dict(self)

    def forward(
        self,
        x: Tensor | GeometricTensor,
        *,
        batch: Tensor | None = None,
        batch_size: int | None = None,
        mask: Tensor | None = None,
        edge_index: Tensor | None = None,
        quadrature_weights: Tensor | None = None,
    ) -> Tensor | GeometricTensor:
        """Logits (b, classes), or a geometric tensor of `out_type`; the arguments are those of every layer (`TokenModule`)."""
        tokens, domain = self._encode(
            x, batch, batch_size, mask=mask, edge_index=edge_index, quadrature_weights=quadrature_weights
        )
        if isinstance(self.readout, SteerableLinear):
            return self.readout.output(tokens, domain)
        return self.readout(self._pool(tokens))

    def invariants(self, x: Tensor | GeometricTensor, **context: Any) -> Tensor:
        """The pooled invariants (b, c) that the logits are read from; the arguments are those of `forward`.

        Raises:
            TypeError: if the network gives fields instead.
        """
        return self._pool(self._encode(x, **context)[0])

    def _pool(self, tokens: Tokens) -> Tensor:
        if self.pool is None:
            raise TypeError(f"a network with fields {self.out_type} as output has no pooled invariants")
        return self.pool.pool_tokens(tokens)

    def _encode(
        self, x: Tensor | GeometricTensor, batch: Tensor | None = None, batch_size: int | None = None, **context: Tensor | None
    ) -> tuple[Tokens, Domain]:
        """The tokens that the last block leaves, and where they are."""
        x = self._typed(x)
        domain = domain_of(x, batch, batch_size)
        if x.coords is None:
            tokens, domain = self._image_tokens(x, **context)
        else:
            if not getattr(self.stem, "takes_context", False):
                raise TypeError(f"a {type(self.stem).__name__} as stem takes images, not a cloud: take stem=SteerableLinear")
            embedded = self.stem(x, batch=batch, batch_size=batch_size, **context)
            tokens = to_tokens(embedded, self.blocks.in_layout, domain, **context)
        return self.blocks.forward_tokens(tokens), domain

    def _typed(self, x: Tensor | GeometricTensor) -> GeometricTensor:
        if isinstance(x, Tensor):
            if x.dim() != 4 or x.shape[1] != self.in_type.size:
                raise ValueError(
                    f"expected images (b, {self.in_type.size}, h, w), or a GeometricTensor, got a tensor {tuple(x.shape)}"
                )
            return GeometricTensor(x, self.in_type)
        return require_type(x, self.in_type)

    def _image_tokens(
        self,
        x: GeometricTensor,
        *,
        mask: Tensor | None = None,
        edge_index: Tensor | None = None,
        quadrature_weights: Tensor | None = None,
    ) -> tuple[Tokens, Domain]:
        """The tokens that the stem makes of images, and their domain; for logits those of the central disc."""
        height, width = x.tensor.shape[2:]
        self._require_centered(height, width)
        pixels = x.tensor
        if quadrature_weights is not None:
            quadrature_weights = require_weights(x, quadrature_weights, mask)
        if mask is not None:
            pixels = pixels.masked_fill(~require_mask(x, mask)[:, None], 0)
        if self.pool is not None:
            pixels = pixels * disc_window(height, width).to(pixels)
        x = self.stem(GeometricTensor(pixels, self.in_type))
        mask, quadrature_weights = (
            None if part is None else self._at_tokens(part, *x.tensor.shape[2:]) for part in (mask, quadrature_weights)
        )
        domain = domain_of(x)
        tokens = to_tokens(
            x, self.blocks.in_layout, domain, mask=mask, quadrature_weights=quadrature_weights, edge_index=edge_index
        )
        return tokens if self.pool is None else disc_tokens(tokens), domain

    def _at_tokens(self, of_pixels: Tensor, height: int, width: int) -> Tensor:
        """Mask or weights (b, h, w) of pixels at the tokens of a stem, which lie on every so many pixels from the first."""
        step = stride_of(self.stem)
        at_tokens = of_pixels[:, ::step, ::step]
        if at_tokens.shape[1:] != (height, width):
            raise ValueError(
                f"the stem makes {height} × {width} tokens of {of_pixels.shape[1]} × {of_pixels.shape[2]} pixels, not one at "
                f"every {step}: masks and weights are not defined for it"
            )
        return at_tokens

    def _require_centered(self, *sides: int) -> None:
        """Raises a ValueError where the stem's strides would move the rotation center off the coarser grid."""
        if self.in_type.fibergroup.order() != 1 and not all(keeps_center(self.stem, side) for side in sides):
            fitting = [fitting_side(self.stem, side) for side in sides]
            advice = "no size fits its windows" if None in fitting else f"pad them to {' × '.join(map(str, fitting))}"
            raise ValueError(
                f"images of {' × '.join(map(str, sides))} lose their rotation center under the strides of the stem "
                f"({stride_of(self.stem)} in all): {advice}"
            )

    @classmethod
    def from_pretrained(cls, name: str | Path) -> nn.Module:
        """A network with trained weights, in eval mode (see `escnn_attn.pretrained`)."""
        return load_pretrained(name)

    def export(self) -> nn.Module:
        """A plain torch module of images, in eval mode, without escnn's objects: to logits, or to fields (b, c', h', w')."""
        return ExportedTransformer(self.stem, self.blocks, self.readout, self.pool)

    def compile(self, **options: Any) -> None:
        """Compiles the transformer blocks (see `SteerableStack.compile`)."""
        self.blocks.compile(**options)

    def train(self, mode: bool = True) -> "SteerableTransformer":
        # as in SequentialModule: filters are expanded as constants
        with torch.no_grad():
            return super().train(mode)

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output; of logits of points the number of clouds is not in the shape, and one is assumed."""
        if self.pool is None:
            return (input_shape[0], self.out_type.size, *self.stem.evaluate_output_shape(input_shape)[2:])
        return (input_shape[0] if len(input_shape) == 4 else 1, self.out_type.size)

    def check_equivariance(self, atol: float = 1e-7, rtol: float = 1e-5) -> list[tuple[GroupElement, float]]:
        """Checks quarter turns and flips of an image, and random elements on a cloud where the stem takes clouds.

        Args:
            atol: unused, kept for escnn's signature: errors are relative.
            rtol: largest relative error, on clouds where no part of the network states a larger `tolerance`.

        Returns:
            the elements with their relative errors.

        Raises:
            AssertionError: if an error is larger.
        """
        errors = assert_equivariant(self, size=fitting_side(self.stem, 29) or 29, tolerance=rtol)
        if not isinstance(self.stem, TokenModule):
            return errors
        return errors + assert_equivariant(self, domain="points", tolerance=max(rtol, 10 * stated_tolerance(self)))
