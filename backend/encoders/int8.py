"""Linear layers in 8-bit integers on the CPU, with PyTorch's own kernels.

Weights are rounded once, by output channel; activations with every call, by their smallest and
largest value (dynamic quantization, https://docs.pytorch.org/docs/stable/quantization.html). That
needs no images, unlike static quantization. Everything else stays in float32.

One call of a layer has one range of activations, so an image's embedding would depend on the images
beside it: call a tower with one image at a time (and its tiles).
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

ENGINES = ("onednn", "x86", "fbgemm")
"""PyTorch's engines for quantized layers on x86, the fastest first."""


class Int8Linear(nn.Module):
    """A linear layer (..., in) to (..., out) with rounded weights.

    Args:
        weight: (out, in).
        bias: (out,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        weight = weight.detach().float()
        # A channel of zeros has no scale.
        scales = (weight.abs().amax(dim=1) / 127).clamp(min=1e-12).double()
        points = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():
            # PyTorch 2.15 announces another interface, and has no kernel of this kind there yet.
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            rounded = torch.quantize_per_channel(weight, scales, points, 0, torch.qint8)
        offset = None if bias is None else bias.detach().float()
        self._packed: Any = torch.ops.quantized.linear_prepack(rounded, offset)

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        return cast(Tensor, torch.ops.quantized.linear_dynamic(values, self._packed, False))


class Int8Attention(nn.Module):
    """Self-attention of a CLIP vision transformer, in place of ``nn.MultiheadAttention``."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self._heads = attention.num_heads
        assert attention.in_proj_weight is not None
        self._in = Int8Linear(attention.in_proj_weight, attention.in_proj_bias)
        self._out = Int8Linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """(N, L, width) to the same shape; all three arguments are the same tokens."""
        tokens = self._in(query).unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = tokens
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask)
        return self._out(mixed.transpose(1, 2).flatten(2)), None


class Int8PatchEmbedding(nn.Module):
    """A convolution whose windows do not overlap: a linear layer on each of them."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self._windows = nn.Unfold(convolution.kernel_size, stride=convolution.stride)
        self._size = convolution.kernel_size
        self._linear = Int8Linear(convolution.weight.flatten(1), convolution.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out, rows, columns)."""
        rows, columns = (
            side // window for side, window in zip(pixels.shape[2:], self._size, strict=True)
        )
        embedded = self._linear(self._windows(pixels).transpose(1, 2))
        return cast(Tensor, embedded.transpose(1, 2).unflatten(2, (rows, columns)))


def to_int8(tower: nn.Module) -> None:
    """Replace a tower's linear layers, those of attention and patch embedding included."""
    from open_clip.transformer import ResidualAttentionBlock

    available = torch.backends.quantized.supported_engines
    torch.backends.quantized.engine = next(name for name in ENGINES if name in available)
    for name, layer in list(tower.named_children()):
        if isinstance(layer, nn.MultiheadAttention):
            # Others attend from tokens of their own.
            if isinstance(tower, ResidualAttentionBlock):
                setattr(tower, name, Int8Attention(layer))
        elif isinstance(layer, nn.Linear):
            setattr(tower, name, Int8Linear(layer.weight, layer.bias))
        elif isinstance(layer, nn.Conv2d) and _is_patch_embedding(layer):
            setattr(tower, name, Int8PatchEmbedding(layer))
        else:
            to_int8(layer)


def _is_patch_embedding(layer: nn.Conv2d) -> bool:
    """Whether it is worth it: the windows of a ConvNeXt's stem are small."""
    return (
        layer.kernel_size == layer.stride
        and layer.groups == 1
        and layer.kernel_size[0] >= 8
        and set(layer.padding) == {0}
    )
