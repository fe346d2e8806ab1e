"""Any open_clip model as an encoder (https://github.com/mlfoundations/open_clip)."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from backend.encoders.base import (
    REGIONS,
    Floats,
    ImageEmbeddings,
    in_batches,
    normalise,
    stored_regions,
    tiles,
)
from backend.encoders.openclip_source import WEIGHTS_FIX, find_source
from backend.encoders.weights import fingerprint
from backend.errors import EncoderError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

CLIP_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""The seven templates that CLIP's authors found to do as well as their eighty (CLIP repository,
notebooks/Prompt_Engineering_for_ImageNet.ipynb)."""
SIGLIP_TEMPLATES = ("This is a photo of {}.",)
"""SigLIP's own template (arXiv 2303.15343)."""
MAX_ASPECT = 4
"""Longest side over shortest side beyond which the ends are cut off before resizing."""


class OpenClipEncoder:
    """An open_clip model. Thread-safe: one forward pass at a time.

    Args:
        name: ``MODEL/TAG``, ``MODEL/CHECKPOINT``, ``hf-hub:NAME`` or ``local-dir:PATH``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        regions: ``none`` or ``tiles``.
        batch_size: images per forward pass; halved when the device runs out of memory.
        offline: never ask a model hub.

    Raises:
        EncoderError: the model, its weights or the device is not available.
    """

    def __init__(
        self,
        name: str,
        *,
        device: str = "auto",
        precision: str = "auto",
        regions: str = "tiles",
        batch_size: int = 32,
        offline: bool = False,
    ) -> None:
        import torch

        self.regions = regions
        self.batch_size = batch_size
        self._device = _device(torch, device)
        self._dtype = _dtype(torch, self._device, precision)
        self._source = find_source(name, offline)
        self.short = self._source.model_name.lower()[:24]
        self.multilingual = self._source.is_multilingual
        self.templates = SIGLIP_TEMPLATES if self._source.is_siglip else CLIP_TEMPLATES
        self.dim = int(self._source.model_config["embed_dim"])
        compute = str(self._dtype).removeprefix("torch.")
        config = json.dumps([self._source.model_config, self._source.preprocess], sort_keys=True)
        digest = hashlib.sha256(config.encode()).hexdigest()[:8]
        self.id = (
            f"openclip-{self._source.model_name}-{fingerprint(self._source.weights)}"
            f"-{digest}-{stored_regions(regions)}-{compute}"
        )
        self._lock = threading.Lock()
        # One of their own for texts: those of thousands of labels must not keep images waiting.
        self._text_lock = threading.Lock()
        self._loaded = False
        self._scale: tuple[float, float | None] = (100.0, None)

    @property
    def logit_scale(self) -> float:
        """The trained temperature, exp of the stored parameter."""
        self.load()
        return self._scale[0]

    @property
    def logit_bias(self) -> float | None:
        """SigLIP's trained bias; None for CLIP."""
        self.load()
        return self._scale[1]

    def load(self) -> None:
        """Read the weights, at the first call only.

        Raises:
            EncoderError: the checkpoint does not fit the model, or the tokenizer is missing.
        """
        with self._lock:
            if not self._loaded:
                self._load()

    def _load(self) -> None:
        import open_clip
        import torch

        source = self._source
        try:
            model = open_clip.create_model(
                source.open_clip_name,
                pretrained=None if source.is_schema else str(source.weights),
                force_preprocess_cfg=source.preprocess or None,
                require_pretrained=True,
                device=self._device,
            )
            self._tokenizer: Any = open_clip.get_tokenizer(source.open_clip_name)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise EncoderError(
                f"{source.open_clip_name} with {source.weights} cannot be loaded: {reason[:300]}",
                "Check that the checkpoint belongs to this model; a model whose tokenizer lies on "
                "a model hub needs that in the hub's cache too. " + WEIGHTS_FIX,
            ) from error
        self._model: Any = model.eval()
        preprocess = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
        self._resize_mode = str(preprocess.resize_mode)
        self._preprocess: Any = open_clip.transform.image_transform_v2(preprocess, is_train=False)
        bias = getattr(model, "logit_bias", None)
        with torch.inference_mode():
            self._scale = (
                float(model.logit_scale.exp()),
                None if bias is None else float(bias),
            )
        self._loaded = True

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """The image, and its tiles where regions are wanted: float32 (1 or 10, 3, H, W)."""
        import torch

        self.load()
        crops = chain([image], tiles(image) if self.regions == "tiles" else [])
        return torch.stack([self._preprocess(self._bounded(crop)) for crop in crops])

    def _bounded(self, image: Image.Image) -> Image.Image:
        """The middle of a very long image, which holds all that the model's centre crop keeps.

        Resizing a strip to a given shortest edge would allocate gigabytes that are cropped away.
        """
        if self._resize_mode != "shortest":
            return image
        width, height = image.size
        limit = MAX_ASPECT * min(width, height)
        left, top = max(0, (width - limit) // 2), max(0, (height - limit) // 2)
        if left or top:
            image = image.crop((left, top, width - left, height - top))
        return image

    def encode_prepared(self, prepared: Sequence[torch.Tensor]) -> ImageEmbeddings:
        """Embed images from `prepare`, the crops of all of them together."""
        import torch

        tiled = self.regions == "tiles"
        if not prepared:
            empty = np.zeros((0, REGIONS, self.dim), np.float32)
            return ImageEmbeddings(empty[:, 0], empty if tiled else None)
        rows = self._forward(torch.cat(list(prepared)))
        rows = rows.reshape(len(prepared), -1, self.dim)
        return ImageEmbeddings(rows[:, 0], rows[:, 1:] if tiled else None)

    def encode_images(self, images: Sequence[Image.Image]) -> ImageEmbeddings:
        """Embed RGB images with the model's own preprocessing."""
        return in_batches(self, images, self.batch_size)

    def _forward(self, pixels: torch.Tensor) -> Floats:
        import torch

        parts: list[Floats] = []
        while len(pixels):
            batch = pixels[: self.batch_size]
            try:
                with self._lock, torch.inference_mode(), self._autocast():
                    embedded = self._model.encode_image(batch.to(self._device))
                parts.append(normalise(embedded.float().cpu().numpy()))
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                torch.cuda.empty_cache()
                # For all later batches too: they would only fail again.
                self.batch_size = len(batch) // 2
                log.warning("The device is out of memory: batches of %d now.", self.batch_size)
                continue
            pixels = pixels[len(batch) :]
        return np.concatenate(parts)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Embed texts as they are, without a template: float32 (C, dim), rows L2-normalised."""
        import torch

        self.load()
        parts: list[Floats] = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(texts), 256):
            with self._text_lock:
                tokens = self._tokenizer(list(texts[start : start + 256]))
                # Texts are few and encoded once: float32 costs nothing and is exact.
                with torch.inference_mode():
                    embedded = self._model.encode_text(tokens.to(self._device))
            parts.append(normalise(embedded.float().cpu().numpy()))
        return np.concatenate(parts)

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)


def _device(torch: Any, wanted: str) -> Any:
    if wanted != "auto":
        try:
            device = torch.device(wanted)
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise EncoderError(
                f"LS_CLIP_DEVICE={wanted} cannot be used: {str(error).splitlines()[0]}",
                "Set LS_CLIP_DEVICE to auto, cpu, cuda, cuda:N or mps.",
            ) from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _dtype(torch: Any, device: Any, wanted: str) -> Any:
    if wanted == "float32":
        return torch.float32
    if wanted == "bfloat16":
        return torch.bfloat16
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    if device.type == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_has_bfloat16() -> bool:
    if os.uname().sysname != "Linux":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
