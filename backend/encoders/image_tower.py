"""Image towers: one forward pass from pixels to the embeddings of an image and of its regions.

Each tower is a module of one input and one output, so that it can be compiled or exported whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from backend.encoders.base import REGIONS

SIDE = 3
"""Regions are a 3 x 3 grid."""


class Normalise(nn.Module):
    """Bytes 0..255 to (value / 255 - mean) / std by channel; floats are passed through.

    Args:
        mean: by channel, of values in 0..1.
        std: by channel.
        dtype: of the result, which is what the tower computes in.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> None:
        super().__init__()
        means, stds = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        self.register_buffer("factor", 1 / (255 * stds))
        self.register_buffer("offset", -means / stds)
        self._dtype = dtype

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) to the same shape."""
        if pixels.dtype == torch.uint8:
            # In float32 whatever the tower computes in: bfloat16 has but 8 bits of precision.
            pixels = torch.addcmul(self.offset, pixels.float(), self.factor)
        return pixels.to(self._dtype)


class ImageTower(nn.Module):
    """Whole images: pixels (N, 3, H, W) to unit vectors (N, 1, dim) in float32.

    Args:
        visual: open_clip's image tower.
        normalise: what the pixels need first.
    """

    def __init__(self, visual: nn.Module, normalise: Normalise) -> None:
        super().__init__()
        self.visual: Any = visual
        self.normalise = normalise

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        return functional.normalize(self.embed(self.normalise(pixels)).float(), dim=-1)

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised pixels to (N, 1, dim)."""
        embedded = self.visual(pixels)
        # CoCa's towers give the tokens, too.
        whole: Tensor = embedded[0] if isinstance(embedded, tuple) else embedded
        return whole.unsqueeze(1)


class CellTower(ImageTower):
    """Images and nine cells of the last feature map, (N, 10, dim), for a timm trunk.

    The trunk averages its map before its head. Here the head is given the averages of the whole map
    and of each ninth of it, so that a cell's embedding lies where an image's does. Where the edge
    of a ninth falls inside a column, it takes its share of that column.
    """

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised pixels to (N, 10, dim)."""
        trunk = self.visual.trunk
        features = trunk.forward_features(pixels)
        is_tokens = features.ndim == 3
        if is_tokens:
            side = int(features.shape[1] ** 0.5)
            features = features.unflatten(1, (side, side))
        innermost = is_tokens or getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        pooled = _with_ninths(features if innermost else features.permute(0, 2, 3, 1))
        flat = pooled.flatten(0, 1)
        # A map of one pixel, or one token: averaging it changes nothing.
        if is_tokens:
            flat = flat[:, None]
        else:
            flat = flat[:, None, None] if innermost else flat[:, :, None, None]
        embedded: Tensor = self.visual.head(trunk.forward_head(flat))
        return embedded.reshape(len(pixels), 1 + REGIONS, -1)


class PatchTower(ImageTower):
    """Images and nine ninths of the patches, (N, 10, dim), for a CLIP vision transformer.

    The image's embedding is the model's own. For the patches the last block is read in another way
    (ClearCLIP, arXiv 2407.12442): each patch attends to those with values like its own, as values
    serve as queries and keys, and neither the residual stream nor the MLP is added, which hold what
    is common to all patches. Patches pass the final normalisation and the projection, and are
    averaged by ninths.
    """

    def __init__(self, visual: nn.Module, normalise: Normalise) -> None:
        super().__init__(visual, normalise)
        attention = self.visual.transformer.resblocks[-1].attn
        width = attention.embed_dim
        self._heads = attention.num_heads
        self.values = nn.utils.skip_init(nn.Linear, width, width)
        self.values.weight = nn.Parameter(attention.in_proj_weight[-width:])
        self.values.bias = nn.Parameter(attention.in_proj_bias[-width:])
        self.output = attention.out_proj

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised pixels to (N, 10, dim)."""
        visual = self.visual
        last = visual.transformer.resblocks[-1]
        seen = visual.forward_intermediates(
            pixels,
            indices=[len(visual.transformer.resblocks) - 2],
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        tokens = torch.cat(
            [seen["image_intermediates_prefix"][0], seen["image_intermediates"][0]], dim=1
        )
        values = self.values(last.ln_1(tokens)).unflatten(-1, (self._heads, -1)).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(values, values, values)
        read = last.ls_1(self.output(mixed.transpose(1, 2).flatten(2)))
        patches = (visual.ln_post(read) @ visual.proj)[:, 1:]
        ninths = _ninths(patches.unflatten(1, visual.grid_size))
        whole: Tensor = seen["image_features"]
        return torch.cat([whole.unsqueeze(1), ninths], dim=1)


def _with_ninths(features: Tensor) -> Tensor:
    """The mean of a map (N, H, W, C), and those of its ninths: (N, 10, C)."""
    return torch.cat([features.mean(dim=(1, 2))[:, None], _ninths(features)], dim=1)


def _ninths(features: Tensor) -> Tensor:
    """The means of the ninths of a map (N, H, W, C) in reading order: (N, 9, C)."""
    rows, columns = (
        _thirds(length, features.dtype, features.device) for length in features.shape[1:3]
    )
    return torch.einsum("nhwc,ih,jw->nijc", features, rows, columns).flatten(1, 2)


@lru_cache(maxsize=64)
def _thirds(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What each of so many pixels weighs in the mean of each third: (3, length), rows sum to 1.

    Kept, since a CUDA graph cannot record how it comes to the device.
    """
    edges = torch.arange(length + 1) * SIDE
    starts = torch.arange(SIDE)[:, None] * length
    overlap = edges[1:].minimum(starts + length) - edges[:-1].maximum(starts)
    return (overlap.clamp(min=0) / length).to(device, dtype)
