"""Any open_clip model as an encoder (https://github.com/mlfoundations/open_clip)."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from backend.encoders.base import (
    CPU_BATCH,
    REGIONS,
    Floats,
    ImageEmbeddings,
    in_batches,
    joined_id,
    normalise,
    stored_regions,
)
from backend.encoders.openclip_source import OpenClipSource
from backend.encoders.preprocessing import (
    PillowPreprocessing,
    Preprocessing,
    TensorPreprocessing,
)
from backend.encoders.weights import fingerprint
from backend.errors import EncoderError, RegionsError
from backend.messages.message import Message

if TYPE_CHECKING:
    import torch

    from backend.encoders.forward_passes import ForwardPasses
    from backend.encoders.image_tower import ImageTower

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

INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")
INT8_KIND = "int8r"
"""What an id calls int8: rows have scales of their own."""
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
"""Names of CPU extensions in Linux's /proc/cpuinfo."""

GPU_CROPS = 256
"""Crops of a forward pass on a GPU."""
CUDA_BATCHES = 3
"""One that the device computes, one that waits for it there, and one on its way."""


class OpenClipEncoder:
    """An open_clip model. Thread-safe: forward passes are started one after the other.

    Args:
        source: the model and its files.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto``, ``float32``, ``bfloat16`` or ``int8``.
        regions: ``auto`` (cells where the model has a feature map, else tiles), ``none``,
            ``cells``, ``patches`` or ``tiles``.
        batch_size: images that are encoded at once; 0: 32 on a CPU, and on a GPU as many as have
            256 crops. A forward pass has fewer crops once the device has run out of memory.
        earlier: compute as the first release did, bit for bit.

    Raises:
        EncoderError: the device is not available, or the model has no such regions.
    """

    def __init__(
        self,
        source: OpenClipSource,
        *,
        device: str = "auto",
        precision: str = "auto",
        regions: str = "auto",
        batch_size: int = 0,
        earlier: bool = False,
    ) -> None:
        import torch

        self._device = _device(torch, device)
        self.precision = _precision(torch, self._device, precision)
        self._source = source
        self._earlier = earlier
        self.regions = _regions(source, regions, earlier)
        self.concurrency = CUDA_BATCHES if self._is_streamed else 1
        self.batch_size = batch_size or self._usual_batch_size()
        self._crops = batch_size or (CPU_BATCH if self._device.type == "cpu" else GPU_CROPS)
        self.short = source.model_name.lower()[:24]
        self.multilingual = source.is_multilingual
        self.templates = SIGLIP_TEMPLATES if source.is_siglip else CLIP_TEMPLATES
        self.dim = int(source.model_config["embed_dim"])
        self._preprocess_config = source.preprocess_config
        self._preprocessing = self._preprocessing_of(self._preprocess_config)
        self.draft_size = self._preprocessing.draft_size
        self.advice = self._advice()
        self.id = self._id()
        self._lock = threading.Lock()
        # One of their own for texts: those of thousands of labels must not keep images waiting.
        self._text_lock = threading.Lock()
        self._loaded = False
        self._scale: tuple[float, float | None] = (100.0, None)

    @property
    def _is_streamed(self) -> bool:
        return self._device.type == "cuda" and not self._earlier

    def _usual_batch_size(self) -> int:
        if self._device.type == "cpu":
            return CPU_BATCH
        return GPU_CROPS // (1 + REGIONS) if self.regions == "tiles" else GPU_CROPS

    def _advice(self) -> str:
        if self._device.type != "cpu" or self.regions != "tiles":
            return ""
        if self.precision == "float32" and has_instructions(INT8_INSTRUCTIONS):
            return Message(
                "{encoder} encodes ten crops of each image on this CPU: LS_CLIP_REGIONS=none "
                "takes a tenth of the time, without a look at small objects; "
                "LS_CLIP_PRECISION=int8 takes about half (docs/encoders.md).",
                encoder=self.short,
            )
        return Message(
            "{encoder} encodes ten crops of each image on this CPU: LS_CLIP_REGIONS=none takes a "
            "tenth of the time, without a look at small objects.",
            encoder=self.short,
        )

    def _id(self) -> str:
        source = self._source
        config = json.dumps([source.model_config, source.preprocess], sort_keys=True)
        return joined_id(
            f"openclip-{source.model_name}",
            fingerprint(source.weights),
            hashlib.sha256(config.encode()).hexdigest()[:8],
            self._preprocessing.name,
            stored_regions(self.regions),
            INT8_KIND if self.precision == "int8" else self.precision,
        )

    def _preprocessing_of(self, config: Any) -> Preprocessing:
        tiled = self.regions == "tiles"
        _, height, width = config.input_size
        if self._earlier or height != width or config.resize_mode == "longest":
            import open_clip

            transform = open_clip.transform.image_transform_v2(config, is_train=False)
            crops_centre = config.resize_mode == "shortest"
            return PillowPreprocessing(transform, tiled=tiled, crops_centre=crops_centre)
        return TensorPreprocessing(height, config.resize_mode, config.interpolation, tiled=tiled)

    @property
    def device(self) -> str:
        """Where the forward passes run."""
        return str(self._device)

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

    @property
    def tower(self) -> ImageTower:
        """The image tower, on its device."""
        self.load()
        return self._passes.tower

    def load(self) -> None:
        """Read the weights, at the first call only.

        Raises:
            EncoderError: the checkpoint does not fit the model, or the tokenizer is missing.
        """
        with self._lock:
            if not self._loaded:
                self._load()

    def _load(self) -> None:
        import torch

        model, self._tokenizer = self._source.open()
        bias = getattr(model, "logit_bias", None)
        with torch.inference_mode():
            self._scale = (
                float(model.logit_scale.exp()),
                None if bias is None else float(bias),
            )
        self._passes = self._passes_of(self._tower_of(model.visual).eval().to(self._device))
        self._texts: Any = model.eval().to(self._device)
        self._loaded = True

    def _passes_of(self, tower: ImageTower) -> ForwardPasses:
        from backend.encoders.forward_passes import DirectPasses, StreamedPasses
        from backend.encoders.int8 import INT8_CROPS

        if self._is_streamed:
            return StreamedPasses(tower, self._device, self._crops)
        crops = min(self._crops, INT8_CROPS) if self.precision == "int8" else self._crops
        autocast = self._earlier and self.precision == "bfloat16"
        return DirectPasses(tower, self._device, crops, autocast=autocast)

    def _tower_of(self, visual: torch.nn.Module) -> ImageTower:
        import torch

        from backend.encoders.image_tower import CellTower, ImageTower, Normalise, PatchTower
        from backend.encoders.int8 import to_int8

        kind = {"cells": CellTower, "patches": PatchTower}.get(self.regions, ImageTower)
        config = self._preprocess_config
        if self._earlier:
            return kind(visual, Normalise(config.mean, config.std, torch.float32))
        dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        layout = torch.channels_last if self._source.has_feature_map else torch.contiguous_format
        tower = kind(
            visual.to(dtype).to(memory_format=layout), Normalise(config.mean, config.std, dtype)
        )
        if self.precision == "int8":
            to_int8(tower)
            self._try_out(tower)
        return tower

    def _try_out(self, tower: ImageTower) -> None:
        """Make sure that the model has no layer that looks into another's weights."""
        import torch

        try:
            with torch.inference_mode():
                tower(torch.zeros(1, *self._preprocess_config.input_size))
        except (AttributeError, RuntimeError, TypeError) as error:
            raise EncoderError(
                Message(
                    "{model_name} cannot be computed in int8: {error}",
                    model_name=self._source.model_name,
                    error=str(error)[:200],
                ),
                Message("Set LS_CLIP_PRECISION to float32."),
            ) from error

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """The image, and its tiles where those are the regions: (1 or 10, 3, H, W)."""
        return self._preprocessing.prepare(image)

    def encode_prepared(self, prepared: Sequence[torch.Tensor]) -> ImageEmbeddings:
        """Embed images from `prepare`, the crops of all of them together."""
        has_regions = self.regions != "none"
        if not prepared:
            empty = np.zeros((0, REGIONS, self.dim), np.float32)
            return ImageEmbeddings(empty[:, 0], empty if has_regions else None)
        self.load()
        with self._lock:
            finish = self._passes.start(prepared)
        # Others may start meanwhile.
        rows = finish().reshape(len(prepared), -1, self.dim)
        return ImageEmbeddings(rows[:, 0], rows[:, 1:] if has_regions else None)

    def encode_images(self, images: Sequence[Image.Image]) -> ImageEmbeddings:
        """Embed RGB images with the model's own preprocessing."""
        return in_batches(self, images)

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
                    embedded = self._texts.encode_text(tokens.to(self._device))
            parts.append(normalise(embedded.float().cpu().numpy()))
        return np.concatenate(parts)


def _regions(source: OpenClipSource, wanted: str, earlier: bool) -> str:
    """The regions that ``wanted`` means for this model.

    Raises:
        RegionsError: the model has no such regions.
    """
    if wanted == "auto":
        return "cells" if source.has_feature_map and not earlier else "tiles"
    has = {"cells": source.has_feature_map, "patches": source.has_patches}
    if has.get(wanted, True):
        return wanted
    needs = {
        "cells": Message(
            "a model that averages a feature map (ConvNeXt, MobileCLIP-S, ViTamin, Swin)"
        ),
        "patches": Message("a CLIP vision transformer with a class token (ViT-B-16 and the like)"),
    }
    others = ", ".join([*(name for name, possible in has.items() if possible), "tiles", "none"])
    raise RegionsError(
        Message(
            "The regions {wanted!r} need {needs}; {model_name} is none.",
            wanted=wanted,
            needs=needs[wanted],
            model_name=source.model_name,
        ),
        Message("Choose {others} or auto (LS_CLIP_REGIONS, or --regions).", others=others),
    )


def _device(torch: Any, wanted: str) -> Any:
    if wanted != "auto":
        try:
            device = torch.device(wanted)
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise EncoderError(
                Message(
                    "LS_CLIP_DEVICE={wanted} cannot be used: {error}",
                    wanted=wanted,
                    error=str(error).splitlines()[0],
                ),
                Message("Set LS_CLIP_DEVICE to auto, cpu, cuda, cuda:N or mps."),
            ) from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _precision(torch: Any, device: Any, wanted: str) -> str:
    """What the image tower computes in.

    Raises:
        EncoderError: the device cannot.
    """
    if wanted == "int8" and (device.type != "cpu" or not has_instructions(INT8_INSTRUCTIONS)):
        raise EncoderError(
            Message(
                "LS_CLIP_PRECISION=int8 is for CPUs with 8-bit dot products (AVX-512 VNNI, "
                "AVX-VNNI or AMX); {device} has none.",
                device=device.type if device.type != "cpu" else Message("this CPU"),
            ),
            Message("Set LS_CLIP_PRECISION to auto, float32 or bfloat16."),
        )
    if wanted != "auto":
        return wanted
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    if device.type == "cpu" and has_instructions(BFLOAT16_INSTRUCTIONS):
        return "bfloat16"
    return "float32"


def has_instructions(names: tuple[str, ...]) -> bool:
    """Whether the CPU has one of these extensions; only Linux tells."""
    if sys.platform != "linux":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(name in flags for name in names)
