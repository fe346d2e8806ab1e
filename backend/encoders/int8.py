"""Linear layers in 8-bit integers on the CPU, with oneDNN's kernels that PyTorch brings.

Weights are rounded once, by output channel; activations with every call, each row (a token or a
patch) by its own largest value. That needs no images to calibrate with, and an image's embedding
does not depend on the images beside it, as it would with one range for a whole call. Everything
else stays in float32.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

INT8_CROPS = 8
"""Crops of a forward pass: the activations of more do not stay in the caches."""

_LEVELS = 127
_ZERO = 128
"""oneDNN is fast with unsigned activations only."""
_SMALLEST = 1e-12
"""A row or a channel of zeros has no scale."""


class Int8Linear(nn.Module):
    """A linear layer (..., in) to (..., out) with rounded weights. Threads may share it.

    Args:
        weight: (out, in).
        bias: (out,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        weight = weight.detach().float()
        scales = (weight.abs().amax(dim=1) / _LEVELS).clamp_(min=_SMALLEST)
        rounded = (weight / scales[:, None]).round_().to(torch.int8)
        offset = torch.zeros(len(weight)) if bias is None else bias.detach().float()
        self._packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        # Those of the rows are then their largest values.
        self._scales = scales / _LEVELS
        self._points = torch.zeros(len(weight), dtype=torch.long)
        self._offset = offset
        # Conversion to integers cuts off; a half more rounds.
        self._middle = torch.tensor(_ZERO + 0.5)

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        rows = values.reshape(-1, values.shape[-1])
        largest = torch.maximum(rows.amax(1, keepdim=True), rows.amin(1, keepdim=True).neg_())
        largest.clamp_(min=_SMALLEST)
        rounded = torch.addcmul(self._middle, rows, _LEVELS / largest).to(torch.uint8)
        sums = torch.ops.onednn.qlinear_pointwise(
            rounded,
            1.0,
            _ZERO,
            self._packed,
            self._scales,
            self._points,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        torch.addcmul(self._offset, sums, largest, out=sums)
        return cast(Tensor, sums.view(*values.shape[:-1], -1))


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
        and layer.dilation == (1, 1)
        and layer.kernel_size[0] >= 8
        and set(layer.padding) == {0}
    )
