"""The parts of one process, put together once: encoder, store, prediction log, model versions."""

from __future__ import annotations

from functools import cache

from backend.encoders.base import Encoder
from backend.encoders.registry import get_encoder
from backend.inference.embedder import Embedder
from backend.inference.image_source import image_source
from backend.inference.versions import ModelVersions
from backend.settings import Settings, settings
from backend.storage.installations import open_store
from backend.storage.prediction_log import PredictionLog


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
        self.embedder = Embedder(settings, self.encoder, self.store, image_source(settings))
        self.versions = ModelVersions(settings, self.encoder, self.store)


@cache
def process_runtime() -> Runtime:
    """The runtime of this process."""
    return Runtime(settings())
