"""What the store knows about an image's file, which tells later whether it is still the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.images.address import is_fixed
from backend.images.validators import UNKNOWN, Validators
from backend.inference.preparer import Known, Prepared
from backend.settings import Settings
from backend.storage.store import Store
from backend.storage.validators import StoredValidators


class KnownImages:
    """See the module. Thread-safe.

    Args:
        settings: Label Studio's address.
        store: where validators are kept.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store

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

    def remember(self, images: Sequence[Prepared]) -> None:
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
