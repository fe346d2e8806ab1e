"""Regions read in the image's own forward pass: cells of a feature map, patches of a ViT."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from torch import nn

from backend.encoders.image_tower import CellTower, ImageTower, Normalise, PatchTower
from backend.encoders.openclip_source import OpenClipSource
from backend.encoders.registry import get_encoder
from backend.errors import EncoderError
from tests.support.builders import make_settings
from tests.support.openclip import openclip_encoder

CLIP_NORM = Normalise((0.48, 0.46, 0.41), (0.27, 0.26, 0.28), torch.float32)
TINY = {
    "image_size": 56, "layers": 3, "width": 64, "head_width": 16, "patch_size": 8,
}  # fmt: skip


def visual_of(vision: dict[str, Any], embed_dim: int = 48, quick_gelu: bool = False) -> nn.Module:
    """A tower at random weights, wide enough that images come out far apart."""
    torch.manual_seed(3)
    tower = _build_vision_tower(embed_dim, CLIPVisionCfg(**vision), quick_gelu).eval()
    with torch.no_grad():
        for weight in tower.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return tower


def source_of(model: str) -> OpenClipSource:
    return OpenClipSource(model, model, Path(), open_clip.get_model_config(model), {})


def trunk_of(model: str) -> str:
    return str(open_clip.get_model_config(model)["vision_cfg"].get("timm_model_name"))


MAPS = {trunk_of(name): name for name in open_clip.list_models() if source_of(name).has_feature_map}


def test_the_families_with_a_feature_map_are_known():
    families = {name.split("_")[0] for name in MAPS}
    assert families == {"convnext", "fastvit", "swin", "vitamin", "vit"}
    for model in (
        "RN50",
        "ViT-B-16",
        "ViT-B-16-SigLIP",
        "EVA02-B-16",
        "PE-Core-B-16",
        "coca_ViT-B-32",
    ):
        assert not source_of(model).has_feature_map


@pytest.mark.parametrize(
    "model",
    ["convnext_tiny", "MobileCLIP2-S0", "swin_base_patch4_window7_224", "ViTamin-S",
     "vit_medium_patch16_gap_256"],
)  # fmt: skip
def test_the_mean_of_the_whole_map_gives_the_models_own_embedding(model: str):
    config = open_clip.get_model_config(model)
    visual = visual_of(
        {**config["vision_cfg"], "timm_model_pretrained": False}, config["embed_dim"]
    )
    size = config["vision_cfg"]["image_size"]
    pixels = torch.rand(2, 3, size, size)
    with torch.inference_mode():
        own = nn.functional.normalize(visual(pixels), dim=-1)
        ours = nn.functional.normalize(CellTower(visual, CLIP_NORM)(pixels), dim=-1)
    assert ours.shape == (2, 10, config["embed_dim"])
    assert (ours[:, 0] - own).abs().max() < 1e-5
    # Cells are of their own place: with one model and random weights they still differ.
    assert (ours[:, 1:] - ours[:, :1]).norm(dim=-1).min() > 1e-4


class MapTrunk(nn.Module):
    """A trunk whose map is its input, so that what a cell averages can be counted."""

    output_fmt = "NCHW"

    def forward_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean(dim=(2, 3))


@pytest.mark.parametrize("size", [(3, 3), (7, 7), (8, 8), (12, 9), (1, 1), (2, 4)])
def test_a_cell_is_the_mean_over_its_ninth_with_fractional_edges(size: tuple[int, int]):
    height, width = size
    visual = nn.Module()
    visual.trunk, visual.head = MapTrunk(), nn.Identity()
    pixels = torch.rand(2, 3, height, width, dtype=torch.float64).float()
    cells = CellTower(visual, CLIP_NORM).embed(pixels)[:, 1:]
    fine = pixels.repeat_interleave(3, 2).repeat_interleave(3, 3)
    for row in range(3):
        for column in range(3):
            part = fine[:, :, row * height :, column * width :][:, :, :height, :width]
            assert torch.allclose(cells[:, 3 * row + column], part.mean(dim=(2, 3)), atol=1e-5)
    assert torch.allclose(cells.mean(1), pixels.mean(dim=(2, 3)), atol=1e-5)


def plain_patches(visual: Any, pixels: torch.Tensor) -> np.ndarray[Any, Any]:
    """Value-to-value attention of the last block, written out in numpy: (N, side, side, dim)."""
    seen: list[torch.Tensor] = []
    hook = visual.transformer.resblocks[-1].register_forward_pre_hook(
        lambda _, given: seen.append(given[0])
    )
    visual(pixels)
    hook.remove()
    block, attention = visual.transformer.resblocks[-1], visual.transformer.resblocks[-1].attn
    weights = {name: value.double().numpy() for name, value in visual.state_dict().items()}
    last = f"transformer.resblocks.{len(visual.transformer.resblocks) - 1}."
    width, heads = attention.embed_dim, attention.num_heads

    def layer_norm(x: Any, name: str) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + block.ln_1.eps)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    rows = []
    for tokens in seen[0].double().numpy():
        x = layer_norm(tokens, f"{last}ln_1")
        values = x @ weights[f"{last}attn.in_proj_weight"][2 * width :].T
        values = values + weights[f"{last}attn.in_proj_bias"][2 * width :]
        mixed = np.zeros_like(values)
        size = width // heads
        for head in range(heads):
            v = values[:, head * size : (head + 1) * size]
            likeness = np.exp(v @ v.T / math.sqrt(size))
            mixed[:, head * size : (head + 1) * size] = (
                likeness / likeness.sum(1, keepdims=True) @ v
            )
        read = mixed @ weights[f"{last}attn.out_proj.weight"].T
        read = read + weights[f"{last}attn.out_proj.bias"]
        rows.append(layer_norm(read, "ln_post") @ weights["proj"])
    return np.stack(rows)[:, 1:].reshape(len(pixels), *visual.grid_size, -1)


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_patches_agree_with_a_plain_implementation(quick_gelu: bool):
    visual = visual_of(TINY, quick_gelu=quick_gelu)
    pixels = torch.rand(2, 3, 56, 56)
    with torch.inference_mode():
        ours = PatchTower(visual, CLIP_NORM).embed(pixels).numpy()
        whole = visual(pixels).numpy()
        patches = plain_patches(visual, pixels)
    assert np.abs(ours[:, 0] - whole).max() < 1e-5
    # A grid of 7 x 7: a third is two patches and a third of one.
    third = np.kron(np.eye(3), np.ones((1, 7))) @ np.kron(np.eye(7), np.ones((3, 1))) / 7
    expected = np.einsum("nhwc,ih,jw->nijc", patches, third, third).reshape(2, 9, -1)
    assert np.abs(ours[:, 1:] - expected).max() < 1e-4
    assert np.abs(expected - expected.mean(1, keepdims=True)).max() > 1e-3


def test_the_models_that_have_patches_are_clips_vision_transformers():
    for model in ("ViT-B-32", "ViT-L-14-336", "ViT-H-14", "xlm-roberta-base-ViT-B-32"):
        assert source_of(model).has_patches
    for model in ("RN50", "convnext_base", "ViT-B-16-SigLIP", "coca_ViT-B-32", "EVA02-B-16"):
        assert not source_of(model).has_patches


def test_a_tower_that_also_gives_its_tokens_gives_the_embedding_alone():
    visual = visual_of({**TINY, "attentional_pool": True, "output_tokens": True})
    pixels = torch.rand(2, 3, 56, 56)
    with torch.inference_mode():
        assert torch.equal(ImageTower(visual, CLIP_NORM).embed(pixels)[:, 0], visual(pixels)[0])


def test_every_model_with_patches_builds_a_patch_tower():
    """By shapes alone, which takes no memory."""
    for model in open_clip.list_models():
        source = source_of(model)
        if not source.has_patches:
            continue
        vision = {**source.model_config["vision_cfg"], "layers": 2}
        size = vision.get("image_size", 224)
        with torch.device("meta"):
            visual = _build_vision_tower(source.model_config["embed_dim"], vision).eval()
            tower = PatchTower(visual, Normalise((0.5,) * 3, (0.5,) * 3, torch.float32))
        embedded = tower(torch.zeros(1, 3, size, size, device="meta"))
        assert embedded.shape == (1, 10, source.model_config["embed_dim"]), model


@pytest.mark.parametrize(
    ("model", "regions", "instead"),
    [
        ("ViT-B-16-SigLIP", "cells", "tiles, none or auto"),
        ("ViT-B-16-SigLIP", "patches", "tiles, none or auto"),
        ("RN50", "patches", "tiles, none or auto"),
        ("ViT-B-32", "cells", "patches, tiles, none or auto"),
        ("convnext_base", "patches", "cells, tiles, none or auto"),
    ],
)
def test_a_model_without_such_regions_says_which_it_has(
    model: str, regions: str, instead: str, tmp_path: Path
):
    checkpoint = tmp_path / "weights.pt"
    checkpoint.write_bytes(b"only its name matters here")
    wanted = make_settings(tmp_path, encoder=f"open_clip:{model}/{checkpoint}", regions=regions)
    with pytest.raises(EncoderError, match=f"regions {regions!r} need") as caught:
        get_encoder(wanted)
    assert instead in caught.value.fix


def test_auto_takes_cells_where_there_is_a_map_and_tiles_elsewhere(tmp_path: Path):
    checkpoint = tmp_path / "weights.pt"
    checkpoint.write_bytes(b"only its name matters here")
    chosen = {
        model: openclip_encoder(f"{model}/{checkpoint}", device="cpu").regions
        for model in ("convnext_base", "MobileCLIP-S1", "ViT-B-32-256", "RN50x4", "ViT-B-16-SigLIP")
    }
    assert chosen == {
        "convnext_base": "cells",
        "MobileCLIP-S1": "cells",
        "ViT-B-32-256": "tiles",
        "RN50x4": "tiles",
        "ViT-B-16-SigLIP": "tiles",
    }


def test_bytes_are_normalised_as_torchvision_does():
    pixels = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    mean, std = torch.tensor((0.48, 0.46, 0.41)), torch.tensor((0.27, 0.26, 0.28))
    expected = (pixels / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert torch.allclose(CLIP_NORM(pixels), expected, atol=1e-5)
    visual = nn.Flatten()
    assert ImageTower(visual, CLIP_NORM)(pixels).shape == (2, 1, 105)
