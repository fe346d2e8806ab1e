"""Any open_clip model: a pretrained tag, a local checkpoint, a local directory or a hub name."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
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
    tiles,
)
from backend.encoders.weights import fingerprint, prepare_hub
from backend.errors import EncoderError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

WEIGHTS_FIX = (
    "Point LS_CLIP_ENCODER at a file you have (open_clip:MODEL/PATH), or fill the hub's cache on "
    "a machine with a way out and copy it here (HF_HOME), or set LS_CLIP_ENCODER=offline."
)
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
MULTILINGUAL_TOWERS = ("xlm", "nllb", "mt5", "i18n", "siglip2", "gemma", "multilingual")


MAX_ASPECT = 4
"""How long an image may be, in widths, before its ends are cut off: the model's centre crop keeps
one width of it anyway."""


class OpenClipEncoder:
    """See the module. Thread-safe: one forward pass at a time.

    Args:
        name: ``MODEL/TAG``, ``MODEL/CHECKPOINT``, ``hf-hub:NAME`` or ``local-dir:PATH``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        regions: ``none`` or ``tiles``.
        batch_size: images a forward pass.
        offline: never ask a model hub.

    Raises:
        EncoderError: the model or its weights cannot be had.
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
        # The hub's clients read their switches when they are imported, so they come after this.
        self._offline = offline
        self._hub_asked = False
        import open_clip
        import torch

        self.regions = regions
        self.batch_size = batch_size
        self._device = _device(torch, device)
        self._dtype = _dtype(torch, self._device, precision)
        self._source = self._resolve(open_clip, name)
        self.short = self._source.short
        text = self._source.model_cfg.get("text_cfg", {})
        tower = f"{text.get('hf_model_name', '')} {text.get('hf_tokenizer_name', '')}".lower()
        tower += f" {self._source.model_name.lower()}"
        self.multilingual = any(word in tower for word in MULTILINGUAL_TOWERS)
        siglip = "init_logit_bias" in self._source.model_cfg
        self.templates = SIGLIP_TEMPLATES if siglip else CLIP_TEMPLATES
        self.dim = int(self._source.model_cfg["embed_dim"])
        compute = str(self._dtype).removeprefix("torch.")
        config = json.dumps([self._source.model_cfg, self._source.preprocess], sort_keys=True)
        digest = hashlib.sha256(config.encode()).hexdigest()[:8]
        self.id = (
            f"openclip-{self._source.model_name}-{fingerprint(self._source.weights)}"
            f"-{digest}-{regions}-{compute}"
        )
        self._lock = threading.Lock()
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
        """Read the weights, once.

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
        """The image and its regions as the model reads them: float32 (1 or 10, 3, H, W)."""
        import torch

        self.load()
        crops = [image, *tiles(image)] if self.regions == "tiles" else [image]
        return torch.stack([self._preprocess(self._bounded(crop)) for crop in crops])

    def _bounded(self, image: Image.Image) -> Image.Image:
        """The middle of a very long image: all that the model's own centre crop would leave.

        Resizing the shortest edge of a strip makes gigabytes of what is cropped away afterwards.
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
        """Embed the crops of all images together."""
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
                # For good: the next batch would only fail again.
                self.batch_size = len(batch) // 2
                log.warning("The device is out of memory: batches of %d now.", self.batch_size)
                continue
            pixels = pixels[len(batch) :]
        return np.concatenate(parts)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Embed texts as they are."""
        import torch

        self.load()
        parts: list[Floats] = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(texts), 256):
            with self._lock:
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

    def _resolve(self, open_clip: Any, name: str) -> _Source:
        if name.startswith("local-dir:"):
            return _from_directory(Path(name.removeprefix("local-dir:")).expanduser(), name)
        if name.startswith("hf-hub:"):
            return self._from_hub(name)
        model, _, rest = name.partition("/")
        if not rest:
            raise EncoderError(
                f"LS_CLIP_ENCODER=open_clip:{name} names no weights.",
                "Write open_clip:MODEL/TAG or open_clip:MODEL/PATH_TO_CHECKPOINT.",
            )
        config = open_clip.get_model_config(model)
        if config is None:
            near = difflib.get_close_matches(model, open_clip.list_models(), 3, 0.3)
            raise EncoderError(
                f"open_clip knows no model {model!r}.", f"Did you mean {', '.join(near)}?"
            )
        path = Path(rest).expanduser()
        if path.is_file():
            return _Source(model, model, path, config, _usual_preprocess(open_clip, model))
        tags = open_clip.list_pretrained_tags_by_model(model)
        if rest not in tags:
            raise EncoderError(
                f"{rest!r} is neither a file nor a pretrained tag of {model}.",
                f"Give the path of a checkpoint, or one of: {', '.join(tags) or 'no tags'}.",
            )
        tag = open_clip.get_pretrained_cfg(model, rest)
        weights = self._download(lambda: open_clip.download_pretrained(tag), name)
        return _Source(model, model, weights, config, _preprocess_of(tag))

    def _from_hub(self, name: str) -> _Source:
        from open_clip.factory import download_pretrained_from_hf

        repository = name.removeprefix("hf-hub:")
        weights = self._download(lambda: download_pretrained_from_hf(repository), name)
        # The configuration lies beside the weights in the hub's cache once it has been read.
        self._download(
            lambda: download_pretrained_from_hf(repository, filename="open_clip_config.json"), name
        )
        return _from_directory(weights.parent, name, weights)

    def _download(self, fetch: Any, name: str) -> Path:
        if not self._hub_asked:
            prepare_hub(self._offline)
            self._hub_asked = True
        try:
            return Path(fetch())
        except Exception as error:
            raise EncoderError(
                f"The weights of {name} are neither in the local cache nor to be downloaded.",
                WEIGHTS_FIX,
            ) from error


class _Source:
    """A model that was found: its names, its files and its configuration."""

    def __init__(
        self,
        open_clip_name: str,
        model_name: str,
        weights: Path,
        model_cfg: dict[str, Any],
        preprocess: dict[str, Any],
    ) -> None:
        self.open_clip_name = open_clip_name
        self.model_name = model_name.replace("/", "_")
        self.weights = weights
        self.model_cfg = model_cfg
        self.preprocess = preprocess
        self.is_schema = ":" in open_clip_name
        self.short = self.model_name.lower()[:24]


def _from_directory(folder: Path, name: str, weights: Path | None = None) -> _Source:
    try:
        config = json.loads((folder / "open_clip_config.json").read_text())
        model_cfg = dict(config["model_cfg"])
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(
            f"{folder} holds no usable open_clip_config.json ({error}).",
            "Give a folder as open_clip's push_to_hf_hub writes it. " + WEIGHTS_FIX,
        ) from error
    if weights is None:
        found = [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.bin"))]
        if not found:
            raise EncoderError(f"{folder} holds no weights.", WEIGHTS_FIX)
        weights = found[0]
    model_name = name.split(":", 1)[1].rstrip("/").rsplit("/", 1)[-1]
    return _Source(name, model_name, weights, model_cfg, dict(config.get("preprocess_cfg", {})))


def _preprocess_of(tag: dict[str, Any]) -> dict[str, Any]:
    """The preprocessing part of a pretrained tag's configuration."""
    keys = ("mean", "std", "interpolation", "resize_mode")
    return {key: tag[key] for key in keys if key in tag}


def _usual_preprocess(open_clip: Any, model: str) -> dict[str, Any]:
    """What the model's published weights use, for a checkpoint that does not say.

    open_clip itself falls back to CLIP's mean and crop, which is wrong for SigLIP, say.
    """
    tags = open_clip.list_pretrained_tags_by_model(model)
    found = [_preprocess_of(open_clip.get_pretrained_cfg(model, tag)) for tag in tags]
    agree = found and all(other == found[0] for other in found)
    return found[0] if agree else {}


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
