"""Base classes of the layers; for layers with a context see `context`, for pooling `pooling`."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from escnn.group import GroupElement
from escnn.nn import EquivariantModule, FieldType, GeometricTensor
from torch import Tensor, nn
from typing_extensions import Unpack

from escnn_attn.fields import IsotypicLayout, require_planar
from escnn_attn.nn._export import ExportedModule
from escnn_attn.testing import Approximate, check_equivariance
from escnn_attn.tokens import DomainOptions, Tokens, grid_of, in_similar_sizes, require_input, require_no_options


class PlanarModule(Approximate, EquivariantModule):
    """A module between two field types on one planar gspace: their check, shapes, the check of equivariance and the export.

    A subclass implements `forward`, on geometric tensors, and `forward_grid`, on plain ones.

    Args:
        in_type: field type of the input.
        out_type: field type of the output.

    Raises:
        TypeError: if the types are not on one planar gspace.

    Examples:
        >>> import torch
        >>> from escnn.nn import GeometricTensor
        >>> from escnn_attn import PlanarModule, field_type, planar_gspace
        >>> class Negative(PlanarModule):
        ...     def forward(self, x):
        ...         return GeometricTensor(self.forward_grid(x.tensor), self.out_type, x.coords)
        ...
        ...     def forward_grid(self, x):
        ...         return -x
        >>> t = field_type(planar_gspace("O2"), vectors=1)
        >>> max(error for _, error in Negative(t, t).check_equivariance())
        0.0
    """

    in_type: FieldType
    out_type: FieldType
    forward: Callable[..., Any]
    #: the module in terms of plain tensors (b, c, height, width), without any type
    forward_grid: Callable[..., Tensor]

    def __init__(self, in_type: FieldType, out_type: FieldType) -> None:
        super().__init__()
        require_planar(in_type)
        require_planar(out_type, "out_type")
        if in_type.gspace != out_type.gspace:
            raise TypeError(f"expected types on one gspace, got {in_type.gspace} and {out_type.gspace}")
        self.in_type = in_type
        self.out_type = out_type

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output for an input (b, c, height, width) or (points, c)."""
        if len(input_shape) not in (2, 4) or input_shape[1] != self.in_type.size:
            raise ValueError(
                f"expected a shape (b, {self.in_type.size}, height, width) or (points, {self.in_type.size}), got {input_shape}"
            )
        return (input_shape[0], self.out_type.size, *input_shape[2:])

    def check_equivariance(self, atol: float = 1e-7, rtol: float = 1e-5) -> list[tuple[GroupElement, float]]:
        """Checks all that `testing.assert_equivariant` does.

        Args:
            atol: unused, kept for escnn's signature: errors are relative.
            rtol: largest relative error; under random rotations `testing.stated_tolerance`, where that is larger.

        Returns:
            the elements with their relative errors.

        Raises:
            AssertionError: if an error is larger.
        """
        return check_equivariance(self, rtol)

    def export(self) -> nn.Module:
        """A copy in eval mode that maps plain tensors (b, c, height, width) by `forward_grid` and holds no field types.

        For `torch.export`, `torch.onnx.export(…, dynamo=True)` and `torch.jit.trace`, of any batch; the first two also keep height and
        width open where `dynamic_shapes` says so, as `SteerableTransformer.export` does.
        """
        return ExportedModule(self)

    def extra_repr(self) -> str:
        if self.out_type is self.in_type or self.out_type == self.in_type:
            return f"in_type={self.in_type}"
        return f"in_type={self.in_type}, out_type={self.out_type}"

    def __repr__(self) -> str:
        """One line, or one more for each line of the equivariant modules inside: tables and parameters are left out."""
        inner = [f"  ({name}): {module!r}".replace("\n", "\n  ") for name, module in _equivariant_children(self)]
        if not inner:
            return f"{type(self).__name__}({self.extra_repr()})"
        return "\n".join([f"{type(self).__name__}(", *inner, ")"])


def _equivariant_children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{inner}", part) for inner, part in _equivariant_children(child))
        elif isinstance(child, EquivariantModule):
            yield name, child


class TakesDomain:
    """Mixin of modules whose `forward` takes `DomainOptions` beside its input: a `SequentialModule` passes them on."""


class IsotypicModule(PlanarModule):
    """A module that computes with isotypic features: common base of `TokenModule`, `ContextModule` and `PoolingModule`.

    Args:
        in_type: field type of the input.
        out_type: field type of the output.
    """

    def __init__(self, in_type: FieldType, out_type: FieldType) -> None:
        super().__init__(in_type, out_type)
        self.in_layout = IsotypicLayout(in_type)
        self.out_layout = self.in_layout if out_type == in_type else IsotypicLayout(out_type)


class TokenModule(IsotypicModule, TakesDomain):
    """A module from tokens to tokens, and from geometric tensors to geometric tensors by converting to tokens and back.

    A subclass implements `forward_tokens`, on tokens in the isotypic layout of `in_type`.

    Args:
        in_type: field type of the input.
        out_type: field type of the output.

    Shape:
        (b, in_type.size, height, width) to (b, out_type.size, height, width), or (points, in_type.size) to (points, out_type.size).

    Raises:
        TypeError: if the types are not on one planar gspace.

    Examples:
        >>> import torch
        >>> from escnn_attn import TokenModule, fourier_type, planar_gspace
        >>> class Double(TokenModule):
        ...     def forward_tokens(self, tokens):
        ...         return tokens.with_features(tuple(2 * f for f in tokens.features))
        >>> t = fourier_type(planar_gspace("SO2"), 1, 1)
        >>> Double(t, t)(t(torch.ones(1, 3), torch.zeros(1, 2))).tensor
        tensor([[2., 2., 2.]])
    """

    @abstractmethod
    def forward_tokens(self, tokens: Tokens) -> Tokens:
        """The layer on tokens."""

    @in_similar_sizes
    def forward(self, x: GeometricTensor | Tokens, **options: Unpack[DomainOptions]) -> GeometricTensor | Tokens:
        """Applies the layer to a grid or to flattened point clouds, or inside a stack to tokens.

        Args:
            x: of type `in_type`: a grid (b, c, height, width), or points (points, c) with `coords` (points, 2); or tokens in the
                layout of `in_type`, for tokens.
            **options: where tokens are, as `tokens.domain_of` takes it: `batch` (points,), the index of each point's cloud, and
                `batch_size`, the number of clouds; `mask` (b, height, width) or (points,), True where a token counts;
                `quadrature_weights`, of the shape of a mask, the share of the plane that each token stands for, so that
                results do not depend on how densely a cloud is sampled; `edge_index` (2, edges), a graph for attention from
                key (first row) to query (second row); `periodic`, whether a grid repeats, and of points `cell`, the width and
                height of the rectangle that repeats.

        Raises:
            TypeError: if x is not of type `in_type` and of the dtype of the module, or another argument goes with tokens.
            ValueError: if another argument does not fit x.
        """
        if isinstance(x, Tokens):
            require_no_options(options)
            return self.forward_tokens(x)
        tokens = Tokens.of(require_input(x, self.in_type, self), self.in_layout, **options)
        return self.forward_tokens(tokens).geometric(self.out_type, self.out_layout)

    def forward_grid(self, x: Tensor) -> Tensor:
        """The layer on plain tensors, (b, c, height, width) to (b, c', height, width), without any type."""
        tokens = self.forward_tokens(Tokens.on(grid_of(x), x, self.in_layout))
        return tokens.domain.unpad(self.out_layout.merge(tokens.features))
