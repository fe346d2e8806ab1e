"""The parts of one process, put together once: encoder, store, prediction log, model versions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

from backend.encoders.base import Encoder
from backend.encoders.registry import get_encoder
from backend.errors import StudioError
from backend.images.bucket_files import BucketFiles
from backend.images.fetcher import ImageFetcher
from backend.images.local_files import LocalFiles
from backend.inference.embedder import Embedder
from backend.inference.versions import ModelVersions
from backend.labelstudio.client import LabelStudioClient
from backend.settings import Settings, settings
from backend.storage.installations import open_store
from backend.storage.prediction_log import PredictionLog

log = logging.getLogger(__name__)


class Runtime:
    """See the module.

    Args:
        settings: of this process.

    Attributes:
        settings: of this process.
        encoder: images and texts to embeddings.
        store: embeddings, statistics, heads and what was shown.
        prediction_log: what tasks were shown.
        embedder: image addresses to embeddings.
        versions: the model versions of all projects.

    Raises:
        EncoderError: the encoder's weights cannot be loaded.
        StoreError: the store cannot be opened.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = open_store(settings)
        self.encoder: Encoder = get_encoder(settings, self.store.vectors.has_any)
        self.prediction_log = PredictionLog(self.store)
        fetcher = ImageFetcher(settings, _studio_headers(settings))
        source = BucketFiles(settings, LocalFiles(settings, fetcher))
        self.embedder = Embedder(settings, self.encoder, self.store, source)
        self.versions = ModelVersions(settings, self.encoder, self.store)


def _studio_headers(settings: Settings) -> Callable[[], dict[str, str]]:
    """Label Studio's Authorization header; none where no token is set."""
    try:
        studio = LabelStudioClient(settings)
    except StudioError as error:
        log.warning("Images on Label Studio itself cannot be fetched. %s", error)
        return dict
    return studio.headers


@cache
def process_runtime() -> Runtime:
    """The runtime of this process."""
    return Runtime(settings())
