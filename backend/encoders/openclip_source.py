"""Where an open_clip model comes from: its name resolved to weights and configuration.

Four kinds of name are known, see `find_source`.
"""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from backend.encoders.weights import prepare_hub
from backend.errors import EncoderError
from backend.messages.message import Message, in_sequence

log = logging.getLogger(__name__)

WEIGHTS_FIX = Message(
    "Point LS_CLIP_ENCODER at a file you have (open_clip:MODEL/PATH), or fill the hub's cache on "
    "a machine with internet access and copy it here (HF_HOME), or set LS_CLIP_ENCODER=offline."
)
MULTILINGUAL_TOWERS = ("xlm", "nllb", "mt5", "i18n", "siglip2", "gemma", "multilingual")
"""Words in the names of text towers and tokenizers that were trained on more than English."""

FEATURE_MAP_TRUNKS = ("convnext", "fastvit", "swin", "vitamin", "vit_medium_patch16_gap")
"""timm's names of image towers whose embedding is made from the average of their last map."""
CUSTOM_BLOCKS = (
    "block_type",
    "qk_norm",
    "scaled_cosine_attn",
    "scale_heads",
    "scale_attn_inner",
    "scale_attn",
    "scale_fc",
)
"""open_clip's options of vision transformers with another attention than CLIP's."""


@dataclass(frozen=True)
class OpenClipSource:
    """An open_clip model whose files are on this machine.

    Attributes:
        open_clip_name: what open_clip's factory is given: a model's name, or a schema
            (``hf-hub:...``, ``local-dir:...``).
        model_name: a readable name, for ids.
        weights: the checkpoint.
        model_config: open_clip's ``model_cfg``; with ``quick_gelu`` where the weights need it.
        preprocess: open_clip's ``preprocess_cfg``; empty: the model's default.
    """

    open_clip_name: str
    model_name: str
    weights: Path
    model_config: dict[str, Any]
    preprocess: dict[str, Any]

    @property
    def is_schema(self) -> bool:
        """Whether open_clip reads the configuration and the weights from the name itself."""
        return ":" in self.open_clip_name

    @property
    def is_quick_gelu(self) -> bool:
        """Whether the towers use CLIP's approximate GELU, x * sigmoid(1.702 x)."""
        return bool(self.model_config.get("quick_gelu", False))

    @property
    def has_feature_map(self) -> bool:
        """Whether the image tower averages a feature map, so that parts of it can be read."""
        tower = self._tower
        pool = tower.get("timm_pool", "avg")
        name = str(tower.get("timm_model_name") or "")
        return name.startswith(FEATURE_MAP_TRUNKS) and pool in {"", "avg"}

    @property
    def has_patches(self) -> bool:
        """Whether the image tower is a CLIP vision transformer that reads a class token."""
        tower = self._tower
        return (
            not tower.get("timm_model_name")
            and isinstance(tower.get("layers", 12), int)
            and tower.get("layers", 12) > 1
            and not tower.get("attentional_pool")
            and tower.get("pool_type", "tok") == "tok"
            and not any(tower.get(name) for name in CUSTOM_BLOCKS)
        )

    @property
    def preprocess_config(self) -> Any:
        """open_clip's ``PreprocessCfg``: what its factory would attach to the model."""
        from open_clip.transform import PreprocessCfg, merge_preprocess_dict

        size = self._tower.get("image_size", 224)
        config = merge_preprocess_dict(PreprocessCfg(), {"size": size})
        return PreprocessCfg(**merge_preprocess_dict(config, self.preprocess))

    def open(self) -> tuple[Any, Any]:
        """The model with its weights, in evaluation mode on the CPU, and its tokenizer.

        Raises:
            EncoderError: the checkpoint does not fit the model, or the tokenizer is missing.
        """
        import open_clip

        try:
            model = open_clip.create_model(
                self.open_clip_name,
                pretrained=None if self.is_schema else str(self.weights),
                force_quick_gelu=self.is_quick_gelu,
                require_pretrained=True,
            )
            tokenizer = open_clip.get_tokenizer(self.open_clip_name)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise EncoderError(
                Message(
                    "{open_clip_name} with {weights} cannot be loaded: {reason}",
                    open_clip_name=self.open_clip_name,
                    weights=self.weights,
                    reason=reason[:300],
                ),
                in_sequence(
                    Message(
                        "Check that the checkpoint belongs to this model; a model whose tokenizer "
                        "lies on a model hub needs that in the hub's cache too."
                    ),
                    WEIGHTS_FIX,
                ),
            ) from error
        return model.eval(), tokenizer

    @property
    def _tower(self) -> dict[str, Any]:
        return dict(self.model_config.get("vision_cfg", {}))

    @property
    def is_siglip(self) -> bool:
        """Whether the model was trained with SigLIP's sigmoid loss, which has a bias."""
        return "init_logit_bias" in self.model_config

    @property
    def is_multilingual(self) -> bool:
        """Whether the text tower was trained on more than English."""
        text = self.model_config.get("text_cfg", {})
        names = (text.get("hf_model_name"), text.get("hf_tokenizer_name"), self.model_name)
        tower = " ".join(name or "" for name in names).lower()
        return any(word in tower for word in MULTILINGUAL_TOWERS)


def find_source(name: str, offline: bool) -> OpenClipSource:
    """Resolve a model's name; weights that are not on this machine are downloaded.

    Args:
        name: ``MODEL/TAG``, ``MODEL/CHECKPOINT``, ``hf-hub:NAME`` or ``local-dir:PATH``.
        offline: never ask a model hub.

    Raises:
        EncoderError: the name is wrong, or the weights are not available.
    """
    if name.startswith("local-dir:"):
        return _from_directory(Path(name.removeprefix("local-dir:")).expanduser(), name)
    if name.startswith("hf-hub:"):
        return _from_hub(name, offline)
    return _from_model_name(name, offline)


def _from_model_name(name: str, offline: bool) -> OpenClipSource:
    import open_clip

    model, _, rest = name.partition("/")
    if not rest:
        raise EncoderError(
            Message("The encoder open_clip:{name} names no weights.", name=name),
            Message("Write open_clip:MODEL/TAG or open_clip:MODEL/PATH_TO_CHECKPOINT."),
        )
    config = open_clip.get_model_config(model)
    if config is None:
        near = difflib.get_close_matches(model, open_clip.list_models(), 3, 0.3)
        raise EncoderError(
            Message("open_clip knows no model {model!r}.", model=model),
            Message("Did you mean {names}?", names=", ".join(near)),
        )
    checkpoint = Path(rest).expanduser()
    if checkpoint.is_file():
        if not config.get("quick_gelu"):
            _warn_of_quick_gelu(model, checkpoint)
        return OpenClipSource(model, model, checkpoint, config, _published_preprocess(model))
    tags = open_clip.list_pretrained_tags_by_model(model)
    if rest not in tags:
        if Path("/", rest).is_file():
            raise EncoderError(
                Message(
                    "{rest!r} is neither a file nor a pretrained tag of {model}; /{rest} is a "
                    "file.",
                    rest=rest,
                    model=model,
                ),
                Message(
                    "Write open_clip:{model}//{rest}: a slash after the model, and one of the "
                    "path.",
                    model=model,
                    rest=rest,
                ),
            )
        raise EncoderError(
            Message(
                "{rest!r} is neither a file nor a pretrained tag of {model}.",
                rest=rest,
                model=model,
            ),
            Message(
                "Give the path of a checkpoint, or one of: {names}.",
                names=", ".join(tags) or Message("no tags"),
            ),
        )
    tag = open_clip.get_pretrained_cfg(model, rest)
    prepare_hub(offline)
    weights = _downloaded(lambda: open_clip.download_pretrained(tag), name)
    if tag.get("quick_gelu"):
        # Weights of OpenAI, MetaCLIP and DFN among others, whose model names do not all say so.
        config["quick_gelu"] = True
    return OpenClipSource(model, model, weights, config, _preprocess_of(tag))


@cache
def _warn_of_quick_gelu(model: str, checkpoint: Path) -> None:
    """Say so, once, where weights published for this model may need an activation that it has not.

    Commands that compare encoders name the same checkpoint several times.
    """
    import open_clip

    tags = [
        tag
        for tag in open_clip.list_pretrained_tags_by_model(model)
        if open_clip.get_pretrained_cfg(model, tag).get("quick_gelu")
    ]
    if not tags:
        return
    log.warning(
        "%s is read as weights for GELU. The published weights %s of %s need QuickGELU, and give "
        "wrong embeddings without it: if these are among them, name it open_clip:%s-quickgelu/%s.",
        checkpoint,
        ", ".join(tags),
        model,
        model,
        checkpoint,
    )


def _from_hub(name: str, offline: bool) -> OpenClipSource:
    from open_clip.factory import download_pretrained_from_hf

    repository = name.removeprefix("hf-hub:")
    prepare_hub(offline)
    weights = _downloaded(lambda: download_pretrained_from_hf(repository), name)
    # The configuration lies beside the weights in the hub's cache once it has been read.
    _downloaded(
        lambda: download_pretrained_from_hf(repository, filename="open_clip_config.json"), name
    )
    return _from_directory(weights.parent, name, weights)


def _from_directory(folder: Path, name: str, weights: Path | None = None) -> OpenClipSource:
    try:
        config = json.loads((folder / "open_clip_config.json").read_text())
        model_config = dict(config["model_cfg"])
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(
            Message(
                "{folder} holds no usable open_clip_config.json ({error}).",
                folder=folder,
                error=error,
            ),
            in_sequence(
                Message("Give a folder as open_clip's push_to_hf_hub writes it."), WEIGHTS_FIX
            ),
        ) from error
    if weights is None:
        from open_clip.factory import _find_checkpoint_in_dir

        # What open_clip will load: the id must hold the fingerprint of that file.
        checkpoint = _find_checkpoint_in_dir(folder)
        if checkpoint is None:
            raise EncoderError(Message("{folder} holds no weights.", folder=folder), WEIGHTS_FIX)
        weights = Path(checkpoint)
    model_name = name.split(":", 1)[1].rstrip("/").rsplit("/", 1)[-1]
    preprocess = dict(config.get("preprocess_cfg", {}))
    return OpenClipSource(name, model_name, weights, model_config, preprocess)


def _downloaded(download: Callable[[], str], name: str) -> Path:
    try:
        return Path(download())
    except Exception as error:  # The hub's clients raise errors of several libraries.
        raise EncoderError(
            Message(
                "The weights of {name} are not in the local cache and cannot be downloaded.",
                name=name,
            ),
            WEIGHTS_FIX,
        ) from error


def _preprocess_of(tag: dict[str, Any]) -> dict[str, Any]:
    """The preprocessing part of a pretrained tag's configuration."""
    keys = ("mean", "std", "interpolation", "resize_mode")
    return {key: tag[key] for key in keys if key in tag}


def _published_preprocess(model: str) -> dict[str, Any]:
    """The preprocessing of the model's published weights, if they agree; else empty.

    For a bare checkpoint open_clip itself takes CLIP's mean and crop, which is wrong for SigLIP.
    """
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model)
    published = [_preprocess_of(open_clip.get_pretrained_cfg(model, tag)) for tag in tags]
    agree = published and all(preprocess == published[0] for preprocess in published)
    return published[0] if agree else {}
