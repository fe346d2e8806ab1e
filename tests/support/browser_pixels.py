"""What Chromium shows of image files: one page draws them all and reads the pixels back."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_READ = """async (file) => {
    const bytes = Uint8Array.from(atob(file), (char) => char.charCodeAt(0));
    const image = new Image();
    const address = URL.createObjectURL(new Blob([bytes]));
    try {
        await new Promise((done, refused) => {
            image.onload = done;
            image.onerror = refused;
            image.src = address;
        });
    } catch {
        return null;
    } finally {
        URL.revokeObjectURL(address);
    }
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d", {willReadFrequently: true});
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    let text = "";
    for (let start = 0; start < pixels.length; start += 8192)
        text += String.fromCharCode(...pixels.subarray(start, start + 8192));
    return [canvas.width, canvas.height, btoa(text)];
}"""


def shown(page: Any, files: Sequence[bytes]) -> list[Pixels | None]:
    """Height x width x RGB of each file, over white; None where the browser shows nothing."""
    texts = [base64.b64encode(data).decode() for data in files]
    answers = page.evaluate(
        f"async (files) => {{ const read = {_READ}; const out = [];"
        " for (const file of files) out.push(await read(file)); return out; }",
        texts,
    )
    return [_pixels(*answer) if answer else None for answer in answers]


def _pixels(width: int, height: int, text: str) -> Pixels:
    values = np.frombuffer(base64.b64decode(text), np.uint8)
    return values.reshape(height, width, 4)[..., :3]
