"""Images, tasks, labeling configs and requests that tests are made of.

What is costly to import is imported where it is used: the tests of the parser need none of it.
"""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from backend.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent

CONTRACT = ROOT / "tests" / "contract"

LABELS = ("cat", "dog", "outdoor")


def photo(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """An image of its own for each seed: smooth noise, so that encoders see a difference."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def png_bytes(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def data_uri(seed: int) -> str:
    """An image that needs no server."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(photo(seed))).decode()


def task(number: int, **data: Any) -> dict[str, Any]:
    """A task as Label Studio sends it, with an image unless ``data`` says otherwise."""
    return {"id": number, "data": data or {"image": data_uri(number)}}


def choices_config(*labels: str, attributes: str = 'choice="multiple"', extra: str = "") -> str:
    """A labeling config with one Choices control."""
    choices = "".join(f'<Choice value="{label}"/>' for label in labels or LABELS)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<Choices name="tags" toName="image" {attributes}>{choices}</Choices>{extra}</View>'
    )


def predict_body(*tasks: Any, **fields: Any) -> dict[str, Any]:
    """The body of a /predict request of Label Studio."""
    return {
        "tasks": list(tasks),
        "project": "1.1795416973",
        "label_config": choices_config(),
        "params": {"login": None, "password": None, "context": None},
        **fields,
    }


LABELS_OF_TASKS = (
    '<View><Image name="image" value="$image"/><Choices name="tags" toName="image" '
    'choice="multiple" value="$options"/></View>'
)
"""A labeling config whose labels stand in each task's data."""
EVIDENCE = '<TextArea name="clip_evidence" toName="image"/>'


def contract(name: str) -> dict[str, Any]:
    """A request that Label Studio 1.23.2 was seen to send."""
    sample: dict[str, Any] = json.loads((CONTRACT / f"{name}.json").read_text())
    return sample


INSTALLATION = "tests"
"""The name of the installation, in settings and on connections to Redis."""


def make_settings(store: Path, **values: Any) -> Settings:
    """Settings for a test: the offline encoder, no blind tasks, a store of its own."""
    from backend.settings import Settings

    given: dict[str, Any] = {
        "encoder": "offline",
        "store": str(store),
        "blind_share": 0.0,
        "installation": INSTALLATION,
        **values,
    }
    return Settings(_env_file=None, **{**given, **values})
