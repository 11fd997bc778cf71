"""The typed shell around every layer of this library, and a chain that passes more than one argument on."""

from abc import abstractmethod

import escnn.nn
import torch
from escnn.group import GroupElement
from escnn.nn import EquivariantModule, FieldType, GeometricTensor
from torch import Tensor, nn

from escnn_attn.compat import one_state_dict
from escnn_attn.fields.types import IsotypicLayout, require_planar
from escnn_attn.nn._export import ExportedModule
from escnn_attn.testing import assert_equivariant, stated_tolerance
from escnn_attn.tokens.domains import Domain, domain_of
from escnn_attn.tokens.tokens import Tokens, from_tokens, grid_tokens, require_type, to_tokens


class PlanarModule(EquivariantModule):
    """A module between two field types on one planar gspace: their check, shapes, the check of equivariance and the export.

    A subclass implements `forward`, on geometric tensors, and `forward_grid`, on plain ones.

    Args:
        in_type: field type of the input.
        out_type: field type of the output.

    Raises:
        TypeError: if the types are not on one planar gspace.
    """

    in_type: FieldType
    out_type: FieldType

    def __init__(self, in_type: FieldType, out_type: FieldType) -> None:
        super().__init__()
        require_planar(in_type)
        require_planar(out_type)
        if in_type.gspace != out_type.gspace:
            raise TypeError(f"expected types on one gspace, got {in_type.gspace} and {out_type.gspace}")
        self.in_type = in_type
        self.out_type = out_type

    @abstractmethod
    def forward_grid(self, x: Tensor) -> Tensor:
        """The module on plain tensors, (b, c, h, w) to (b, c', h, w), without any type."""

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output for an input (b, c, height, width) or (points, c)."""
        if len(input_shape) not in (2, 4) or input_shape[1] != self.in_type.size:
            raise ValueError(
                f"expected a shape (b, {self.in_type.size}, h, w) or (points, {self.in_type.size}), got {input_shape}"
            )
        return (input_shape[0], self.out_type.size, *input_shape[2:])

    def extra_repr(self) -> str:
        return f"in_type={self.in_type}, out_type={self.out_type}"

    def check_equivariance(self, atol: float = 1e-7, rtol: float = 1e-5) -> list[tuple[GroupElement, float]]:
        """Checks random group elements on a point cloud, and exactly representable ones on a grid, in float64.

        Args:
            atol: unused, kept for escnn's signature: errors are relative.
            rtol: largest relative error, where no part of the module states a larger `tolerance` of its own.

        Returns:
            the elements with their relative errors.

        Raises:
            AssertionError: if an error is larger.
        """
        bound = max(rtol, 10 * stated_tolerance(self))
        on_points = assert_equivariant(self, domain="points", tolerance=bound)
        return on_points + assert_equivariant(self, domain="grid", tolerance=rtol)

    def export(self) -> nn.Module:
        """A plain torch module for grids, `forward_grid` in eval mode, without escnn's objects."""
        return ExportedModule(self)


class TokenModule(PlanarModule):
    """A module on tokens, and on geometric tensors by converting to tokens and back: base class of the layers.

    A subclass implements `forward_tokens`, on tokens in the isotypic layout of `in_type`.

    Args:
        in_type: field type of the input.
        out_type: field type of the output.

    Shape:
        (b, in_type.size, h, w) to (b, out_type.size, h, w), or (points, in_type.size) to (points, out_type.size).

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

    #: whether `forward` takes `batch`, `mask` and the like: a chain then passes them on
    takes_context = True

    def __init__(self, in_type: FieldType, out_type: FieldType) -> None:
        super().__init__(in_type, out_type)
        self.in_layout = IsotypicLayout(in_type)
        self.out_layout = self.in_layout if out_type == in_type else IsotypicLayout(out_type)

    @abstractmethod
    def forward_tokens(self, tokens: Tokens) -> Tokens:
        """The layer's tensor-level core."""

    def forward(
        self,
        x: GeometricTensor,
        *,
        batch: Tensor | None = None,
        batch_size: int | None = None,
        mask: Tensor | None = None,
        edge_index: Tensor | None = None,
        quadrature_weights: Tensor | None = None,
    ) -> GeometricTensor:
        """Applies the layer to a grid or to flattened point clouds.

        Args:
            x: of type `in_type`: a grid (b, c, height, width), or points (points, c) with `coords` (points, 2).
            batch: (points,) the index of each point's cloud; None for one cloud.
            batch_size: number of clouds, when trailing ones may be empty.
            mask: (b, height, width) or (points,), True for tokens and False for padding.
            edge_index: (2, edges) indices of points, key (source) and query (target): attention is along these edges.
            quadrature_weights: of the shape of a mask, the share of the plane that each token stands for: attention and pooling then
                do not depend on how densely a cloud is sampled.

        Raises:
            TypeError: if x is not of type `in_type`.
            ValueError: if another argument does not fit x.
        """
        x = require_type(x, self.in_type)
        domain = domain_of(x, batch, batch_size)
        tokens = to_tokens(x, self.in_layout, domain, mask=mask, quadrature_weights=quadrature_weights, edge_index=edge_index)
        return self.output(tokens, domain)

    def output(self, tokens: Tokens, domain: Domain) -> GeometricTensor:
        """The geometric tensor that `forward` returns, from the tokens of its input."""
        return from_tokens(self.forward_tokens(tokens), self.out_type, self.out_layout, domain)

    def forward_grid(self, x: Tensor) -> Tensor:
        """The layer on plain tensors, (b, c, h, w) to (b, c', h, w), without any type."""
        tokens = self.forward_tokens(grid_tokens(x, self.in_layout))
        return self.out_layout.merge(tokens.features).unflatten(2, x.shape[2:])


class SequentialModule(escnn.nn.SequentialModule):
    """escnn's chain of modules, which also forwards `batch`, `mask`, `edge_index` and the like to the modules of this library.

    Examples:
        >>> import escnn.nn
        >>> import torch
        >>> from escnn_attn import SequentialModule, SteerableLinear, fourier_type, planar_gspace
        >>> t = fourier_type(planar_gspace("C4"), 2)
        >>> chain = SequentialModule(SteerableLinear(t, t), escnn.nn.ReLU(t))
        >>> chain(t(torch.randn(5, 8), torch.randn(5, 2)), batch=torch.tensor([0, 0, 1, 1, 1])).shape
        torch.Size([5, 8])
    """

    in_type: FieldType
    takes_context = True

    def __init__(self, *modules: EquivariantModule) -> None:
        super().__init__(*modules)
        one_state_dict(self)

    def check_equivariance(self, atol: float = 1e-7, rtol: float = 1e-5) -> list[tuple[GroupElement, float]]:
        """Checks exactly representable elements on a grid, and random ones on a cloud if all modules take clouds.

        Args:
            atol: unused, kept for escnn's signature: errors are relative.
            rtol: largest relative error, on clouds where no part states a larger `tolerance`.

        Returns:
            the elements with their relative errors.

        Raises:
            AssertionError: if an error is larger.
        """
        errors = assert_equivariant(self, domain="grid", tolerance=rtol)
        if all(isinstance(module, PlanarModule | SequentialModule) for module in self._modules.values()):
            errors += assert_equivariant(self, domain="points", tolerance=max(rtol, 10 * stated_tolerance(self)))
        return errors

    def train(self, mode: bool = True) -> "SequentialModule":
        # escnn's convolutions expand their filters on entering eval mode: as constants, so that a copy can be made
        with torch.no_grad():
            return super().train(mode)

    def forward(
        self,
        x: GeometricTensor,
        *,
        batch: Tensor | None = None,
        batch_size: int | None = None,
        mask: Tensor | None = None,
        edge_index: Tensor | None = None,
        quadrature_weights: Tensor | None = None,
    ) -> GeometricTensor:
        require_type(x, self.in_type)
        context = {
            "batch": batch,
            "batch_size": batch_size,
            "mask": mask,
            "edge_index": edge_index,
            "quadrature_weights": quadrature_weights,
        }
        for module in filter(None, self._modules.values()):
            if getattr(module, "takes_context", False):
                x = module(x, **context)
                continue
            if any(value is not None for value in context.values()) and any(
                isinstance(m, TokenModule) for m in module.modules()
            ):
                raise TypeError(
                    f"{type(module).__name__} does not pass batch, mask and the like on to the attention inside it: nest an "
                    "escnn_attn.SequentialModule instead"
                )
            x = module(x)
        return x
