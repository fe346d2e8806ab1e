"""Where the images of tasks come from: Label Studio and the web, a shared disk, or a bucket."""

from __future__ import annotations

import logging
from collections.abc import Callable

from backend.errors import StudioError
from backend.images.bucket_files import BucketFiles
from backend.images.direct import Source
from backend.images.fetcher import ImageFetcher
from backend.images.local_files import LocalFiles
from backend.labelstudio.client import LabelStudioClient
from backend.settings import Settings

log = logging.getLogger(__name__)


def image_source(settings: Settings) -> Source:
    """The way to image files that these settings describe; thread-safe."""
    fetcher = ImageFetcher(settings, _studio_headers(settings))
    return BucketFiles(settings, LocalFiles(settings, fetcher))


def _studio_headers(settings: Settings) -> Callable[[], dict[str, str]]:
    """Label Studio's Authorization header; none where no token is set."""
    try:
        studio = LabelStudioClient(settings)
    except StudioError as error:
        log.warning("Images on Label Studio itself cannot be fetched. %s", error)
        return dict
    return studio.headers
