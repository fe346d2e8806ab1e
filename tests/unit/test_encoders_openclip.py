"""open_clip models: agreement with open_clip's own calls, at random weights, and clear refusals."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from backend.encoders import openclip
from backend.encoders.base import tile_boxes
from backend.encoders.label_texts import unreadable_texts
from backend.encoders.openclip import OpenClipEncoder
from backend.encoders.registry import get_encoder
from backend.errors import EncoderError
from tests.support.builders import make_settings, photo
from tests.support.openclip import TOWERS, model_folder, openclip_encoder, random_weights
from tests.support.waiting import PATIENCE

PHOTOS = [photo(seed, 90 + 30 * seed, 60) for seed in range(4)]
TEXTS = ["a photo of a dog.", "two bicycles", "", "word " * 200]
SIGLIP = {**TOWERS, "init_logit_scale": 2.3, "init_logit_bias": -5.0}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


@pytest.fixture(scope="session")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("models") / "tiny-siglip", SIGLIP, HALF)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a model that open_clip knows by name."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "tiny-clip.json").write_text(json.dumps(TOWERS))
    open_clip.add_model_config(folder / "tiny-clip.json")
    checkpoint = folder / "tiny-clip.pt"
    torch.save(random_weights(TOWERS, 1), checkpoint)
    return checkpoint


NAMES = ["siglip", "clip"]


def name_of(kind: str, request: pytest.FixtureRequest) -> str:
    path = request.getfixturevalue(kind)
    return f"local-dir:{path}" if kind == "siglip" else f"tiny-clip/{path}"


def encoder_of(kind: str, request: pytest.FixtureRequest, **options: Any) -> OpenClipEncoder:
    given = {"device": "cpu", "precision": "float32", **options}
    return openclip_encoder(name_of(kind, request), **given)


def reference(kind: str, request: pytest.FixtureRequest) -> tuple[Any, Any, Any]:
    """What open_clip's README does: model, preprocessing and tokenizer."""
    path = request.getfixturevalue(kind)
    if kind == "siglip":
        model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{path}")
        return model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{path}")
    model, _, preprocess = open_clip.create_model_and_transforms("tiny-clip", str(path))
    return model.eval(), preprocess, open_clip.get_tokenizer("tiny-clip")


def embeddings_of(model: Any, preprocess: Any, tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        pixels = torch.stack([preprocess(image) for image in PHOTOS])
        image = model.encode_image(pixels, normalize=True)
        return image, model.encode_text(tokenizer(TEXTS), normalize=True)


@pytest.mark.parametrize("kind", NAMES)
def test_embeddings_are_those_of_open_clip(kind: str, request: pytest.FixtureRequest):
    image, text = embeddings_of(*reference(kind, request))
    encoder = encoder_of(kind, request)
    our_image, our_text = encoder.encode_images(PHOTOS).image, encoder.encode_texts(TEXTS)
    assert (image.numpy() * our_image).sum(1).min() >= 0.9999
    assert (text.numpy() * our_text).sum(1).min() >= 0.9999
    # Otherwise the lines above would hold for any model.
    assert (image @ image.T).min() < 0.99
    assert (text @ text.T).min() < 0.99


# PyTorch's resizing may round a byte otherwise than Pillow's.
@pytest.mark.parametrize(("earlier", "tolerance"), [(True, 1e-4), (False, 5e-3)])
@pytest.mark.parametrize("kind", NAMES)
def test_probabilities_are_those_of_open_clip(
    kind: str, earlier: bool, tolerance: float, request: pytest.FixtureRequest
):
    model, preprocess, tokenizer = reference(kind, request)
    image, text = embeddings_of(model, preprocess, tokenizer)
    with torch.no_grad():
        logits = image @ text.T * model.logit_scale.exp()
        if kind == "siglip":
            expected = torch.sigmoid(logits + model.logit_bias)
        else:
            expected = logits.softmax(dim=-1)
    encoder = encoder_of(kind, request, earlier=earlier)
    assert (encoder.logit_bias is None) == (kind == "clip")
    cosine = encoder.encode_images(PHOTOS).image @ encoder.encode_texts(TEXTS).T
    logits = torch.from_numpy(cosine) * encoder.logit_scale
    bias = encoder.logit_bias
    ours = logits.softmax(dim=-1) if bias is None else torch.sigmoid(logits + bias)
    assert ours.numpy() == pytest.approx(expected.numpy(), abs=tolerance)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("kind", NAMES)
def test_batch_size_and_order_change_nothing(
    kind: str, precision: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(openclip, "has_instructions", lambda names: True)
    options = {"precision": precision, "regions": "none" if precision == "int8" else "tiles"}
    whole = encoder_of(kind, request, batch_size=4, **options).encode_images(PHOTOS)
    single = encoder_of(kind, request, batch_size=1, **options).encode_images(PHOTOS[::-1])
    assert np.abs(whole.image - single.image[::-1]).max() < 1e-5
    if precision == "int8":
        return
    assert whole.regions is not None and single.regions is not None
    assert np.abs(whole.regions - single.regions[::-1]).max() < 1e-5


def test_regions_are_the_embeddings_of_the_tiles(request: pytest.FixtureRequest):
    encoder = encoder_of("clip", request)
    regions = encoder.encode_images(PHOTOS[:1]).regions
    assert regions is not None
    expected = encoder.encode_images(
        [PHOTOS[0].crop(box) for box in tile_boxes(*PHOTOS[0].size)]
    ).image
    assert np.abs(regions[0] - expected).max() < 1e-5


@pytest.mark.parametrize("kind", NAMES)
def test_images_do_not_wait_for_texts(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    encoder = encoder_of(kind, request)
    encoder.load()
    inside, go_on = threading.Event(), threading.Event()
    encode_text = encoder._texts.encode_text

    def wait(tokens: Any) -> Any:
        inside.set()
        assert go_on.wait(PATIENCE)
        return encode_text(tokens)

    monkeypatch.setattr(encoder._texts, "encode_text", wait)
    with ThreadPoolExecutor(1) as pool:
        texts = pool.submit(encoder.encode_texts, ["a cat"])
        assert inside.wait(PATIENCE)
        images = encoder.encode_images(PHOTOS[:1])
        assert not texts.done()
        go_on.set()
    assert len(images.image) == 1


def test_a_device_out_of_memory_halves_the_batch_for_good_and_goes_on(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    expected = encoder_of("clip", request, batch_size=4).encode_images(PHOTOS[:4])
    encoder = encoder_of("clip", request, batch_size=32)
    encoder.load()
    tower = encoder.tower
    encode, sizes = tower.forward, []

    def tight(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(pixels)

    monkeypatch.setattr(tower, "forward", tight)
    ours = encoder.encode_images(PHOTOS[:4])
    assert np.abs(ours.image - expected.image).max() < 1e-5
    encoder.encode_images(PHOTOS[:4])
    assert sizes[0] == 32
    assert sizes[1:3] == [16, 8]
    assert max(sizes[3:]) <= 8


def test_nothing_to_encode_gives_nothing(request: pytest.FixtureRequest):
    encoder = encoder_of("clip", request)
    assert encoder.encode_images([]).image.shape == (0, 48)
    assert encoder.encode_texts([]).shape == (0, 48)
    assert encoder_of("clip", request, regions="none").encode_images(PHOTOS).regions is None


def test_bfloat16_stays_close_and_has_another_id(request: pytest.FixtureRequest):
    exact, fast = encoder_of("clip", request), encoder_of("clip", request, precision="bfloat16")
    cosine = (exact.encode_images(PHOTOS).image * fast.encode_images(PHOTOS).image).sum(1)
    assert cosine.min() > 0.99
    assert exact.id != fast.id
    assert np.array_equal(exact.encode_texts(TEXTS), fast.encode_texts(TEXTS))


def test_templates_follow_the_kind_of_model(request: pytest.FixtureRequest):
    assert len(encoder_of("clip", request).templates) == 7
    assert encoder_of("siglip", request).templates == ("This is a photo of {}.",)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["ten crops", "LS_CLIP_REGIONS=none", "LS_CLIP_PRECISION=int8"]),
        ({"precision": "int8"}, ["ten crops", "LS_CLIP_REGIONS=none"]),
        ({"regions": "none"}, []),
        ({"device": "meta"}, []),
    ],
)
def test_tiles_on_a_cpu_come_with_the_setting_that_spares_most(
    options: dict[str, str],
    words: list[str],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(openclip, "has_instructions", lambda names: "avx512_vnni" in names)
    advice = encoder_of("clip", request, **options).advice
    assert bool(advice) == bool(words)
    assert all(word in advice for word in words)
    assert ("int8" in advice) == ("LS_CLIP_PRECISION=int8" in words)


# The id


def test_the_id_is_known_before_the_weights_are_read(
    request: pytest.FixtureRequest, tmp_path: Path
):
    request.getfixturevalue("clip")
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no checkpoint")
    encoder = openclip_encoder(f"tiny-clip/{broken}")
    assert encoder.id.startswith("openclip-tiny-clip-")
    assert encoder.dim == 48
    with pytest.raises(EncoderError, match="cannot be loaded"):
        encoder.load()


def test_the_id_changes_with_weights_regions_and_precision(
    request: pytest.FixtureRequest, tmp_path: Path
):
    other = tmp_path / "other.pt"
    torch.save(random_weights(TOWERS, 2), other)
    ids = {
        encoder_of("clip", request).id,
        encoder_of("clip", request, regions="none").id,
        encoder_of("clip", request, precision="bfloat16").id,
        encoder_of("siglip", request).id,
        openclip_encoder(f"tiny-clip/{other}", device="cpu", precision="float32").id,
    }
    assert len(ids) == 5


def test_the_id_changes_with_the_preprocessing(siglip: Path, tmp_path: Path):
    other = model_folder(tmp_path / "tiny-siglip", SIGLIP, {**HALF, "resize_mode": "shortest"})
    weights = (siglip / "open_clip_model.safetensors").read_bytes()
    (other / "open_clip_model.safetensors").write_bytes(weights)
    assert openclip_encoder(f"local-dir:{siglip}").id != openclip_encoder(f"local-dir:{other}").id


def test_the_id_does_not_change_with_the_place_of_the_file(
    request: pytest.FixtureRequest, tmp_path: Path
):
    checkpoint = request.getfixturevalue("clip")
    moved = tmp_path / "elsewhere.pt"
    moved.write_bytes(checkpoint.read_bytes())
    assert (
        openclip_encoder(f"tiny-clip/{moved}").id == openclip_encoder(f"tiny-clip/{checkpoint}").id
    )


def test_a_siglip_checkpoint_gets_siglips_preprocessing(tmp_path: Path):
    """open_clip itself would take CLIP's mean and crop for a bare checkpoint."""
    checkpoint = tmp_path / "siglip.pt"
    checkpoint.write_bytes(b"only its name matters here")
    preprocess = openclip_encoder(f"ViT-B-16-SigLIP/{checkpoint}")._source.preprocess
    assert preprocess["resize_mode"] == "squash"
    assert preprocess["mean"] == (0.5, 0.5, 0.5)


# What cannot be had


def refusal(name: str, **options: Any) -> EncoderError:
    with pytest.raises(EncoderError) as caught:
        openclip_encoder(name, **options)
    assert caught.value.fix
    return caught.value


def test_an_unknown_model_is_answered_with_similar_names():
    assert "ViT-B-32" in refusal("ViT-B32/openai").fix


def test_an_unknown_tag_or_missing_file_is_explained():
    error = refusal("ViT-B-32/no_such_tag")
    assert "no_such_tag" in error.message
    assert "ViT-B-32" in refusal("ViT-B-32").message


def test_a_missing_checkpoint_file_is_explained(tmp_path: Path):
    assert "gone.pt" in refusal(f"ViT-B-32/{tmp_path / 'gone.pt'}").message


def test_a_path_that_lacks_its_first_slash_is_told_with_both(tmp_path: Path):
    checkpoint = tmp_path / "mine.pt"
    checkpoint.touch()
    error = refusal(f"ViT-B-32{checkpoint}")
    assert f"open_clip:ViT-B-32/{checkpoint}" in error.fix


def test_a_device_that_this_machine_lacks_is_explained(request: pytest.FixtureRequest):
    request.getfixturevalue("clip")
    with pytest.raises(EncoderError, match="LS_CLIP_DEVICE"):
        encoder_of("clip", request, device="cuda:99")


def test_a_folder_without_configuration_or_weights_is_explained(siglip: Path, tmp_path: Path):
    assert "open_clip_config.json" in refusal(f"local-dir:{tmp_path}").message
    config = (siglip / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(config)
    assert "no weights" in refusal(f"local-dir:{tmp_path}").message


def test_weights_of_another_model_are_refused(siglip: Path, tmp_path: Path):
    wider = {**SIGLIP, "embed_dim": 64}
    other = model_folder(tmp_path / "tiny-siglip", wider, HALF)
    weights = (siglip / "open_clip_model.safetensors").read_bytes()
    (other / "open_clip_model.safetensors").write_bytes(weights)
    with pytest.raises(EncoderError, match="cannot be loaded"):
        openclip_encoder(f"local-dir:{other}").encode_images(PHOTOS)


def test_cells_need_a_convolutional_encoder(siglip: Path, tmp_path: Path):
    wanted = make_settings(tmp_path, encoder=f"local-dir:{siglip}", regions="cells")
    with pytest.raises(EncoderError, match="LS_CLIP_REGIONS"):
        get_encoder(wanted)


# Languages


def test_an_english_model_does_not_know_japanese(request: pytest.FixtureRequest):
    encoder = encoder_of("clip", request)
    assert not encoder.multilingual
    assert unreadable_texts(encoder, ["犬", "dog"]) == ["犬"]


@pytest.mark.parametrize(
    "model",
    ["xlm-roberta-base-ViT-B-32", "nllb-clip-base", "ViT-B-16-SigLIP-i18n-256", "ViT-B-16-SigLIP2"],
)
def test_multilingual_models_are_recognised(model: str, tmp_path: Path):
    checkpoint = tmp_path / "weights.pt"
    checkpoint.write_bytes(b"only its name matters here")
    encoder = openclip_encoder(f"{model}/{checkpoint}")
    assert encoder.multilingual
    assert unreadable_texts(encoder, ["犬"]) == []


@pytest.mark.parametrize("model", ["ViT-B-16", "ViT-B-16-SigLIP", "roberta-ViT-B-32"])
def test_english_models_are_not_taken_for_multilingual_ones(model: str, tmp_path: Path):
    checkpoint = tmp_path / "weights.pt"
    checkpoint.write_bytes(b"only its name matters here")
    assert not openclip_encoder(f"{model}/{checkpoint}").multilingual


def test_a_strip_costs_no_more_than_its_middle(request: pytest.FixtureRequest):
    encoder = encoder_of("clip", request, regions="none")
    strip = Image.new("RGB", (60_000, 1), (200, 10, 10))
    # 60,000 x 1, resized by its shortest edge, would take 150 GB.
    ours = encoder.encode_images([strip, strip.rotate(90, expand=True)]).image
    assert np.isfinite(ours).all()
    middle = encoder.encode_images([Image.new("RGB", (4, 1), (200, 10, 10))]).image
    assert float((ours[0] * middle[0]).sum()) > 0.999


def test_a_panorama_is_embedded_as_open_clip_does(request: pytest.FixtureRequest):
    model, preprocess, _ = reference("clip", request)
    panorama = PHOTOS[0].resize((900, 300))
    with torch.no_grad():
        expected = model.encode_image(preprocess(panorama)[None], normalize=True).numpy()
    ours = encoder_of("clip", request, regions="none").encode_images([panorama]).image
    assert float((expected * ours).sum()) >= 0.9999
