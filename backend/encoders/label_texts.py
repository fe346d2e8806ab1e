"""The texts that stand for a label, their embeddings, and labels that a text tower cannot read."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from backend.encoders.base import Encoder, Floats, normalise
from backend.errors import counted
from backend.messages.message import Message, in_sequence

TEXT_BATCH = 256
"""Texts encoded at once; other labels wait so long for the encoder."""


def label_texts(encoder: Encoder, label: str, prompts: Sequence[str] = ()) -> list[str]:
    """The texts that stand for a label: its own prompts, or the encoder's templates around it.

    Args:
        encoder: whose templates are used.
        label: as the labeling config shows it; underscores count as spaces.
        prompts: complete texts, used as they are.

    Returns:
        At least one text.
    """
    if prompts:
        return list(prompts)
    words = label.replace("_", " ").strip() or label
    return [template.format(words) for template in encoder.templates]


def label_embeddings(
    encoder: Encoder,
    prompts: Sequence[Sequence[str]],
    step: Callable[[int, int], None] = lambda done, total: None,
) -> Floats:
    """One embedding per label: the normalised mean over its texts.

    Prompt ensembling in embedding space, as in CLIP (arXiv 2103.00020, section 3.1.4).

    Args:
        encoder: the text tower.
        prompts: for each of C labels its texts, complete (templates already applied).
        step: called after each batch with the number of texts that are encoded, and of all.

    Returns:
        float32 (C, dim), rows L2-normalised.
    """
    if not prompts:
        return np.zeros((0, encoder.dim), np.float32)
    flat = [text for texts in prompts for text in texts]
    parts = []
    # Batches are the same wherever labels are encoded: others might give another last bit.
    for start in range(0, len(flat), TEXT_BATCH):
        parts.append(encoder.encode_texts(flat[start : start + TEXT_BATCH]))
        step(min(start + TEXT_BATCH, len(flat)), len(flat))
    encoded = np.concatenate(parts)
    ends = np.cumsum([len(texts) for texts in prompts])
    means = [part.mean(axis=0) for part in np.split(encoded, ends[:-1])]
    return normalise(np.stack(means))


def unreadable_texts(encoder: Encoder, texts: Sequence[str]) -> list[str]:
    """Those of the texts with letters that an English text tower never learned (e.g. Japanese)."""
    if encoder.multilingual:
        return []
    return [
        text
        for text in texts
        if not text.isascii() and any(_is_foreign(character) for character in text)
    ]


def unreadable_message(encoder: Encoder, labels: Sequence[str]) -> tuple[str, str]:
    """A warning about labels that the text tower cannot read, and its fix.

    Args:
        encoder: the English-only encoder.
        labels: from `unreadable_texts`, not empty; the first five are named.
    """
    later = Message(
        "None is suggested before a head has learned it, from about six reviewed tasks that have "
        "it."
    )
    return (
        in_sequence(unreadable_sentence(encoder, labels), later),
        Message(
            'Say each in English (model_prompt="a photo of ..." in the labeling config, which '
            "ls-clip prompts PROJECT prepares), or take a multilingual model, e.g. "
            "LS_CLIP_ENCODER=open_clip:xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k."
        ),
    )


def unreadable_sentence(encoder: Encoder, labels: Sequence[str]) -> Message:
    """That the text tower cannot read these; not empty; the first five are named."""
    return Message(
        "{encoder} reads English only, and cannot read {count}: {names}.",
        encoder=encoder.short,
        count=counted(len(labels), "label"),
        names=", ".join(labels[:5]) + (", ..." if len(labels) > 5 else ""),
    )


def _is_foreign(character: str) -> bool:
    return character.isalpha() and not unicodedata.name(character, "").startswith("LATIN")
