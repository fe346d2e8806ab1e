"""open_clip's pretrained tags: each is loaded as open_clip's own factory would load it."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
from open_clip import factory
from open_clip.tokenizer import SimpleTokenizer
from torch import nn

from backend.encoders.openclip_source import find_source
from tests.support.openclip import openclip_encoder

TAGS = open_clip.list_pretrained()


class Recorder(nn.Module):
    """Stands for a model: keeps what open_clip's factory would build it from."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = config
        size = config["vision_cfg"].get("image_size", 224)
        self.visual: Any = SimpleNamespace(image_size=size, preprocess_cfg={})


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Makes open_clip build recorders, and every download this file."""
    file = tmp_path / "weights.pt"
    file.write_bytes(b"only its name matters here")
    # It would set the hub's clients to offline mode, for the whole process and all that it starts.
    monkeypatch.setattr("backend.encoders.openclip_source.prepare_hub", lambda offline: False)
    for name in ("CLIP", "CustomTextCLIP", "CoCa"):
        monkeypatch.setattr(factory, name, Recorder)
    monkeypatch.setattr(factory, "_set_model_device_and_precision", lambda *_: None)
    monkeypatch.setattr(factory, "load_checkpoint", lambda *_, **__: None)
    tokenizer = SimpleTokenizer(context_length=77)
    monkeypatch.setattr(factory, "get_tokenizer", lambda *_, **__: tokenizer)
    monkeypatch.setattr(open_clip, "get_tokenizer", factory.get_tokenizer)
    for module in (factory, open_clip):
        monkeypatch.setattr(module, "download_pretrained", lambda *_, **__: str(file))
    return file


def needs_quick_gelu(model: str, tag: str) -> bool:
    return bool(open_clip.get_pretrained_cfg(model, tag).get("quick_gelu"))


@pytest.mark.filterwarnings("ignore:QuickGELU mismatch")
def test_every_tag_is_built_and_preprocessed_as_open_clip_does(weights: Path):
    """Activation, image size, context length and all else that a model is built from."""
    assert len(TAGS) > 190
    for model, tag in TAGS:
        theirs = open_clip.create_model(model, tag, force_quick_gelu=needs_quick_gelu(model, tag))
        source = find_source(f"{model}/{tag}", offline=True)
        ours, _ = source.open()
        assert ours.config == theirs.config, (model, tag)
        expected = open_clip.transform.PreprocessCfg(**theirs.visual.preprocess_cfg)
        assert source.preprocess_config == expected, (model, tag)


def test_weights_for_quick_gelu_get_it_whatever_the_models_name_says(weights: Path):
    assert sum(needs_quick_gelu(model, tag) for model, tag in TAGS) > 50
    wrong = [
        (model, tag)
        for model, tag in TAGS
        if needs_quick_gelu(model, tag)
        and not find_source(f"{model}/{tag}", offline=True).is_quick_gelu
    ]
    assert wrong == []


def test_the_activation_is_part_of_the_id(weights: Path):
    ids = {
        openclip_encoder(f"ViT-B-32/{tag}", device="cpu", precision="float32").id
        for tag in ("openai", "laion2b_s34b_b79k")
    }
    assert len(ids) == 2


def test_a_file_of_a_model_with_such_weights_comes_with_a_warning(
    weights: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        assert not find_source(f"ViT-B-32/{weights}", offline=True).is_quick_gelu
    (warning,) = caplog.messages
    assert "openai" in warning
    assert f"open_clip:ViT-B-32-quickgelu/{weights}" in warning


@pytest.mark.parametrize("model", ["ViT-B-32-quickgelu", "ViT-B-32-256", "ViT-B-16-SigLIP"])
def test_other_files_come_without_one(model: str, weights: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        find_source(f"{model}/{weights}", offline=True)
    assert caplog.messages == []


@pytest.mark.parametrize(
    "names", [["open_clip_model.safetensors", "model.safetensors"], ["a.bin", "model.safetensors"]]
)
def test_of_several_weights_in_a_folder_the_fingerprint_is_of_those_that_are_loaded(
    names: list[str], tmp_path: Path
):
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 8}}')
    for name in names:
        (tmp_path / name).write_text(name)
    source = find_source(f"local-dir:{tmp_path}", offline=True)
    assert str(source.weights) == factory._find_checkpoint_in_dir(tmp_path)
