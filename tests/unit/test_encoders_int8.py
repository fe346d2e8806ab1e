"""Image towers in 8-bit integers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from torch import Tensor, nn

from backend.encoders import openclip
from backend.encoders.image_tower import CellTower, ImageTower, Normalise, PatchTower
from backend.encoders.int8 import Int8Linear, to_int8
from backend.encoders.registry import get_encoder
from backend.errors import EncoderError
from tests.support.builders import make_settings
from tests.support.openclip import openclip_encoder

NORMALISE = Normalise((0.48, 0.46, 0.41), (0.27, 0.26, 0.28), torch.float32)
VIT: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {
        "image_size": 64, "layers": 3, "width": 128, "head_width": 32, "patch_size": 16,
    },
}  # fmt: skip

# Without them oneDNN's sums overflow, which is why the encoder refuses such a CPU.
needs_dot_products = pytest.mark.skipif(
    not openclip.has_instructions(openclip.INT8_INSTRUCTIONS),
    reason="needs a CPU with 8-bit dot products (AVX-512 VNNI, AVX-VNNI or AMX)",
)


def towers(kind: type[ImageTower], config: dict[str, Any]) -> tuple[ImageTower, ImageTower]:
    """The same tower twice, at random weights: in float32 and in int8."""
    both = []
    for _ in range(2):
        torch.manual_seed(5)
        vision = {**config["vision_cfg"], "timm_model_pretrained": False}
        visual = _build_vision_tower(config["embed_dim"], CLIPVisionCfg(**vision)).eval()
        both.append(kind(visual, NORMALISE).eval())
    to_int8(both[1])
    return both[0], both[1]


@needs_dot_products
@pytest.mark.parametrize(
    ("kind", "model"),
    [
        (ImageTower, "a small ViT"),
        (PatchTower, "a small ViT"),
        (CellTower, "convnext_tiny"),
        (CellTower, "MobileCLIP2-S0"),
        (ImageTower, "PE-Core-T-16-384"),
        (ImageTower, "coca_ViT-B-32"),
    ],
)
def test_embeddings_stay_close_to_those_in_float32(kind: type[ImageTower], model: str):
    config = VIT if model == "a small ViT" else open_clip.get_model_config(model)
    exact, rounded = towers(kind, config)
    size = config["vision_cfg"].get("image_size", 224)
    pixels = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        cosines = (exact(pixels) * rounded(pixels)).sum(-1)
    assert cosines.shape == (2, 1 if kind is ImageTower else 10)
    assert cosines.min() > 0.999


@pytest.mark.parametrize("kind", [ImageTower, PatchTower])
def test_an_embedding_does_not_depend_on_the_images_beside_it(kind: type[ImageTower]):
    _, rounded = towers(kind, VIT)
    pixels = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    # Its values are far larger than those of the others.
    pixels[0] = 255 * (torch.arange(64) // 16 % 2)
    with torch.inference_mode():
        together = rounded(pixels)
        alone = torch.cat([rounded(one[None]) for one in pixels])
    assert (together - alone).abs().max() < 1e-5


def test_threads_may_share_a_layer():
    torch.manual_seed(7)
    layer = Int8Linear(torch.randn(96, 64), torch.randn(96))
    given = [torch.randn(rows, 64) for rows in range(1, 41)] * 5
    expected = [layer(values) for values in given]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(layer, given))
    assert all(torch.equal(ours, one) for ours, one in zip(found, expected, strict=True))


@needs_dot_products
def test_a_token_far_larger_than_the_others_leaves_them_exact():
    torch.manual_seed(7)
    weight, values = torch.randn(96, 64), torch.randn(10, 64)
    values[3] *= 1000
    exact, ours = values @ weight.T, Int8Linear(weight, None)(values)
    assert torch.nn.functional.cosine_similarity(exact, ours).min() > 0.999


def test_a_row_of_zeros_gives_the_bias():
    bias = torch.randn(4)
    assert torch.equal(Int8Linear(torch.randn(4, 8), bias)(torch.zeros(2, 8)), bias.expand(2, 4))


def test_all_linear_layers_of_a_vision_transformer_are_rounded():
    _, rounded = towers(PatchTower, VIT)
    left = [type(layer).__name__ for layer in rounded.modules()]
    assert left.count("Int8Linear") == 3 * 4 + 1 + 2
    assert not {"Linear", "MultiheadAttention", "Conv2d"} & set(left)


@needs_dot_products
def test_a_layer_keeps_a_channel_of_zeros_and_has_no_bias_of_its_own():
    weight = torch.randn(4, 8)
    weight[1] = 0
    values = torch.randn(5, 8)
    ours = Int8Linear(weight, None)(values)
    assert torch.allclose(ours, values @ weight.T, atol=0.1)
    assert (ours[:, 1] == 0).all()


# What cannot be had


@pytest.fixture
def siglip(tmp_path: Path) -> str:
    checkpoint = tmp_path / "weights.pt"
    checkpoint.write_bytes(b"only its name matters here")
    return f"open_clip:ViT-B-16-SigLIP/{checkpoint}"


def test_a_cpu_without_8_bit_dot_products_is_named(
    siglip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(openclip, "has_instructions", lambda names: False)
    wanted = make_settings(tmp_path, encoder=siglip, precision="int8", device="cpu")
    with pytest.raises(EncoderError, match="this CPU has none") as caught:
        get_encoder(wanted)
    assert "LS_CLIP_PRECISION" in caught.value.fix


def test_another_device_than_the_cpu_is_refused(siglip: str):
    with pytest.raises(EncoderError, match="meta has none"):
        openclip_encoder(siglip.removeprefix("open_clip:"), precision="int8", device="meta")


class Peeking(nn.Module):
    """A layer that reads another's weights, as some of timm's do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean(dim=(2, 3)) @ self.layer.weight.T


def test_a_model_that_cannot_be_rounded_is_said_when_it_is_loaded(
    siglip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(openclip, "has_instructions", lambda names: True)
    encoder = get_encoder(
        make_settings(tmp_path, encoder=siglip, precision="int8", device="cpu", regions="none")
    )
    assert isinstance(encoder, openclip.OpenClipEncoder)
    with pytest.raises(EncoderError, match="cannot be computed in int8") as caught:
        encoder._tower_of(Peeking())
    assert "float32" in caught.value.fix


def test_clips_resnets_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Their attention pool reads the weights of its layers."""
    monkeypatch.setattr(openclip, "has_instructions", lambda names: True)
    checkpoint = tmp_path / "weights.pt"
    checkpoint.write_bytes(b"only its name matters here")
    encoder = openclip_encoder(f"RN50/{checkpoint}", device="cpu", precision="int8", regions="none")
    config = open_clip.get_model_config("RN50")
    visual = _build_vision_tower(config["embed_dim"], CLIPVisionCfg(**config["vision_cfg"]))
    with pytest.raises(EncoderError, match="RN50 cannot be computed in int8"):
        encoder._tower_of(visual.eval())


def test_the_precision_is_part_of_the_id(
    siglip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(openclip, "has_instructions", lambda names: True)
    ids = {
        get_encoder(make_settings(tmp_path, encoder=siglip, precision=precision)).id
        for precision in ("int8", "float32", "bfloat16")
    }
    assert len(ids) == 3
    assert sum(each.endswith("-int8r") for each in ids) == 1
