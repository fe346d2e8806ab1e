"""open_clip encoders by name, and small models at random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

from backend.encoders.openclip import OpenClipEncoder
from backend.encoders.openclip_source import find_source

TOWERS: dict[str, Any] = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 48, "heads": 2, "layers": 2},
}
"""A small CLIP vision transformer and its text tower."""
CONVNET: dict[str, Any] = {
    **TOWERS,
    "vision_cfg": {
        "timm_model_name": "convnext_atto",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": 64,
    },
}
"""The same text tower beside the smallest ConvNeXt."""


def random_weights(config: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """Random weights, wide enough that images and texts come out far apart."""
    torch.manual_seed(seed)
    weights = CLIP(**config).state_dict()
    wide = {
        name: value + 0.3 * torch.randn_like(value)
        for name, value in weights.items()
        if value.is_floating_point() and "logit" not in name
    }
    return {name: value.contiguous() for name, value in {**weights, **wide}.items()}


def model_folder(folder: Path, config: dict[str, Any], preprocess: Any, seed: int = 0) -> Path:
    folder.mkdir()
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    save_file(random_weights(config, seed), folder / "open_clip_model.safetensors")
    return folder


def openclip_encoder(name: str, **options: Any) -> OpenClipEncoder:
    """The encoder of ``MODEL/TAG``, ``MODEL/CHECKPOINT`` or ``local-dir:PATH``, without a hub."""
    return OpenClipEncoder(find_source(name, offline=True), **options)
