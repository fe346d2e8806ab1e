"""Fetching and decoding images, and what tells later whether an image is still the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from backend import telemetry
from backend.images.address import is_fixed
from backend.images.decode import decode
from backend.images.validators import UNKNOWN, FetchedFile, Validators
from backend.settings import Settings
from backend.storage.store import Store
from backend.storage.validators import StoredValidators
from backend.storage.vectors import content_key

DRAFT_SIZE = 896
"""JPEGs may be decoded down to this shorter side: no encoder here looks closer."""


class Source(Protocol):
    """Where image files come from: Label Studio and the web, or a disk."""

    def fetch_file(self, value: str, known: Validators) -> FetchedFile | None:
        """The file at this address; None if it is the one with these validators.

        Raises:
            ImageError: it cannot be fetched or read.
        """


@dataclass(frozen=True)
class Known:
    """What the store knows about an image that may have been replaced.

    Attributes:
        key: content key of the image that is embedded.
        validators: of that content.
    """

    key: str
    validators: Validators


@dataclass(frozen=True)
class ReadImage:
    """An image that was fetched.

    Attributes:
        value: its address as the task's data has it.
        address: its name in the store.
        key: its content key.
        validators: of that content.
        prepared: from `Encoder.prepare`; None if the image is the known one.
    """

    value: str
    address: str
    key: str
    validators: Validators
    prepared: Any


class ImageReader:
    """See the module. Thread-safe.

    Args:
        settings: image limits, and Label Studio's address.
        source: gets the bytes.
        store: where validators are kept.
        prepare: of the encoder.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        store: Store,
        prepare: Callable[[Image.Image], Any],
    ) -> None:
        self._settings = settings
        self._source = source
        self._store = store
        self._prepare = prepare

    def read(self, value: str, address: str, known: Known | None = None) -> ReadImage:
        """Fetch an image, and decode it unless it is the known one.

        Raises:
            ImageError: it cannot be fetched or decoded.
            ClipError: as the source raises it.
        """
        with telemetry.FETCH_SECONDS.time():
            file = self._source.fetch_file(value, UNKNOWN if known is None else known.validators)
        if file is None:
            assert known is not None
            # Its validators are stored already.
            return ReadImage(value, address, known.key, UNKNOWN, None)
        key = content_key(file.data)
        if known is not None and known.key == key:
            return ReadImage(value, address, key, file.validators, None)
        with telemetry.DECODE_SECONDS.time():
            image = decode(file.data, self._settings.max_image_pixels, DRAFT_SIZE)
            return ReadImage(value, address, key, file.validators, self._prepare(image))

    def is_fixed(self, address: str) -> bool:
        """Whether the image at this address in the store never changes."""
        return is_fixed(address, self._settings.label_studio_url)

    def known(self, stored: Mapping[str, str]) -> dict[str, Known]:
        """Address -> what is known, of those stored images that may have been replaced.

        Args:
            stored: address -> content key.

        Raises:
            StoreError: the store cannot be read.
        """
        keys = {address: key for address, key in stored.items() if not self.is_fixed(address)}
        found = {address: Known(key, UNKNOWN) for address, key in keys.items()}
        for address, row in self._store.validators.of(keys).items():
            validators = Validators(row.etag, row.last_modified, row.size)
            found[address] = Known(keys[address], validators)
        return found

    def remember(self, images: Sequence[ReadImage]) -> None:
        """Store the validators of these images, after their addresses.

        Raises:
            StoreError: the store cannot be written.
        """
        self._store.validators.add(
            [
                StoredValidators(
                    image.address,
                    image.key,
                    image.validators.etag,
                    image.validators.last_modified,
                    image.validators.size,
                )
                for image in images
                if image.validators.tell_something and not self.is_fixed(image.address)
            ]
        )
