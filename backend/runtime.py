"""The parts of one process, put together once: encoder, store, snapshots, fetcher, predictor."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

from backend.embedder import Embedder
from backend.encoders import Encoder, get_encoder
from backend.errors import StudioError
from backend.fetch import ImageFetcher
from backend.predictor import Predictor
from backend.settings import Settings, settings
from backend.snapshots import Snapshots
from backend.store import Store
from backend.studio import Studio

log = logging.getLogger(__name__)


class Runtime:
    """See the module.

    Args:
        settings: of this process.

    Raises:
        EncoderError: the encoder's weights cannot be had.
        StoreError: the store cannot be opened.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.encoder: Encoder = get_encoder(settings)
        self.store = Store(settings.store_uri)
        self.snapshots = Snapshots(self.store)
        fetcher = ImageFetcher(settings, _studio_headers(settings))
        self.embedder = Embedder(settings, self.encoder, self.store, fetcher)
        self.predictor = Predictor(settings, self.encoder, self.store, self.embedder)


def _studio_headers(settings: Settings) -> Callable[[], dict[str, str]]:
    """Label Studio's Authorization header; none where no token is set."""
    try:
        studio = Studio(settings)
    except StudioError as error:
        log.warning("Images on Label Studio itself cannot be fetched. %s", error)
        return dict
    return studio.headers


@cache
def runtime() -> Runtime:
    """The runtime of this process."""
    return Runtime(settings())
