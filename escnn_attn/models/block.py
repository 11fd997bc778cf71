"""Pre-norm residual blocks and stacks of them."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from escnn_attn.arguments import require_flag, require_instance
from escnn_attn.fields import Features
from escnn_attn.modes import any_sizes, plain_operations
from escnn_attn.nn.attention import SteerableSelfAttention
from escnn_attn.nn.dropout import DropPath
from escnn_attn.nn.modules import TokenModule
from escnn_attn.nn.norm import SteerableRMSNorm
from escnn_attn.tokens import Tokens


class SteerableTransformerBlock(TokenModule):
    r"""Attention and feed-forward, each after a norm and around a residual connection.

    $x \leftarrow x + \mathrm{attention}(\mathrm{norm}(x))$, $x \leftarrow x + \mathrm{feedforward}(\mathrm{norm}(x))$
    (pre-norm: Xiong et al., 2020, https://arxiv.org/abs/2002.04745).

    Args:
        attention: self-attention whose output type is its input type.
        feedforward: a layer of the same type.
        drop_path: probability of skipping a branch in training, for each sample (stochastic depth).

    Shape:
        (b, c, height, width) or (points, c), unchanged.

    Raises:
        TypeError: if the types of the two modules differ.

    Examples:
        >>> import torch
        >>> from escnn_attn import BilinearFeedForward, SteerableSelfAttention, SteerableTransformerBlock, fourier_type, planar_gspace
        >>> t = fourier_type(planar_gspace("D4"), 2)
        >>> block = SteerableTransformerBlock(SteerableSelfAttention(t, num_heads=1), BilinearFeedForward(t))
        >>> block(t(torch.randn(1, 16, 5, 5))).shape
        torch.Size([1, 16, 5, 5])
    """

    def __init__(self, attention: TokenModule, feedforward: TokenModule, *, drop_path: float = 0.0) -> None:
        for name, module in (("attention", attention), ("feedforward", feedforward)):
            _require_tokens(name, module)
            if module.in_type != attention.in_type or module.out_type != attention.in_type:
                raise TypeError(
                    f"a residual block keeps its type {attention.in_type}, but {type(module).__name__} maps "
                    f"{module.in_type} to {module.out_type}"
                )
        super().__init__(attention.in_type, attention.in_type)
        self.attention_norm = SteerableRMSNorm(attention.in_type)
        self.attention = attention
        self.feedforward_norm = SteerableRMSNorm(attention.in_type)
        self.feedforward = feedforward
        self.drop_path = DropPath(drop_path)

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        # called as modules, so that hooks and wrappers of layers are at work
        tokens = tokens + self.drop_path(self.attention(self.attention_norm(tokens)))
        return tokens + self.drop_path(self.feedforward(self.feedforward_norm(tokens)))


class SteerableStack(TokenModule):
    """Layers in a row, converting to tokens and back once.

    Args:
        layers: modules on tokens, each with the output type of the layer before as its input type.
        checkpointing: whether each layer is computed again for the gradient instead of keeping what is inside it.

    Shape:
        (b, c, height, width) or (points, c), to the channels of the last layer's output type.

    Raises:
        TypeError: if the input type of a layer is not the output type of the layer before.
        ValueError: if there are no layers.

    Examples:
        >>> import torch
        >>> from escnn_attn import SteerableLinear, SteerableRMSNorm, SteerableStack, fourier_type, planar_gspace
        >>> wide, narrow = (fourier_type(planar_gspace("O2"), n, 1) for n in (4, 2))
        >>> stack = SteerableStack([SteerableLinear(wide, narrow), SteerableRMSNorm(narrow)])
        >>> stack(wide(torch.randn(1, 24, 5, 5))).shape
        torch.Size([1, 12, 5, 5])
    """

    def __init__(self, layers: Iterable[TokenModule], *, checkpointing: bool = False) -> None:
        modules = list(require_instance("layers", layers, Iterable))
        if not modules:
            raise ValueError("layers: a stack needs at least one layer, got []")
        for layer in modules:
            _require_tokens("layers", layer)
        for before, layer in pairwise(modules):
            if layer.in_type != before.out_type:
                raise TypeError(f"{type(layer).__name__} takes {layer.in_type}, but the layer before gives {before.out_type}")
        super().__init__(modules[0].in_type, modules[-1].out_type)
        self.layers, self.checkpointing = nn.ModuleList(modules), require_flag("checkpointing", checkpointing)
        self._compiled: Callable[[Tokens], Features] | None = None

    def compile(self, **options: Any) -> None:
        """Compiles the layers, on tokens, into one graph for any number of tokens and samples; `options` are those of `torch.compile`.

        What depends on positions alone is computed outside the graph. Torch makes graphs of their own for a batch of one and for calls
        without gradient, and a neighborhood has one for each of its ways: all pairs, discs by tiles or by a mask, graphs.
        """
        compiled = torch.compile(lambda tokens: self._run(tokens).features, **{"dynamic": True, **options})
        self._compiled = any_sizes(compiled)

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        if self._compiled is None:
            return self._run(tokens)
        for module in self.modules():
            if isinstance(module, SteerableSelfAttention):
                module.prepare(tokens.domain, tokens.domain)
        return tokens.with_features(self._compiled(tokens))

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_compiled": None}  # a copy is compiled anew

    def _run(self, tokens: Tokens) -> Tokens:
        again = self.checkpointing and torch.is_grad_enabled() and not plain_operations()
        for layer in self.layers:
            tokens = checkpoint(layer, tokens, use_reentrant=False) if again else layer(tokens)
        return tokens


def _require_tokens(name: str, module: object) -> None:
    """Raises a TypeError for modules that do not map tokens to tokens."""
    if not isinstance(module, TokenModule):
        raise TypeError(
            f"{name}: expected a layer on tokens, such as SteerableSelfAttention or another TokenModule, got {_brief(module)}"
        )


def _brief(module: object) -> str:
    return type(module).__name__ if isinstance(module, nn.Module) else repr(module)
