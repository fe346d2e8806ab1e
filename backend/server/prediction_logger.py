"""Writes what live predictions showed into the prediction log, each once and many at a time.

An append to the log and the query for linked images cost several milliseconds of CPU, as much as
the prediction itself. So the predictions that come while an append is going on are appended
together, and what this process has logged already is not appended again: readers take one row per
project, task and version, and that row would be the same.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from backend.inference.embedder import Embedder
from backend.inference.prediction import Prediction, logged
from backend.inference.predictor import images_of
from backend.storage.prediction_log import PredictionLog
from backend.storage.tables import TableVersion

REMEMBERED = 10_000
"""Predictions, as a hash each, of which this process knows that the log has them."""

_Key = tuple[str, int | None, str]


class PredictionLogger:
    """See the module. Not thread-safe: one thread logs.

    What is remembered holds only as long as nobody else changes the log, which its version shows:
    after a purge or another process's append everything counts as new.

    Args:
        prediction_log: where it is written.
        embedder: names the images.
    """

    def __init__(self, prediction_log: PredictionLog, embedder: Embedder) -> None:
        self._log = prediction_log
        self._embedder = embedder
        self._version: TableVersion | None = None
        self._digests: OrderedDict[_Key, bytes] = OrderedDict()

    def write(self, shown: Sequence[tuple[str, Sequence[Prediction]]]) -> None:
        """Log predictions; those without a result or a task id are left out.

        Args:
            shown: projects (``<id>.<unix time of creation>``) with predictions, oldest first.

        Raises:
            StoreError: the store cannot be read or written.
        """
        # Of two predictions of one task and version the last counts, as it does for readers.
        newest: dict[_Key, Prediction] = {
            (project, prediction.task, prediction.model_version): prediction
            for project, predictions in shown
            for prediction in predictions
            if prediction.logged() is not None
        }
        version = self._log.version()
        if version != self._version:
            self._digests.clear()
        # Until all is written nothing is known of the log.
        self._version = None
        digests = {key: _digest(prediction) for key, prediction in newest.items()}
        fresh = [key for key in newest if self._digests.get(key) != digests[key]]
        appends = 0
        for project in dict.fromkeys(key[0] for key in fresh):
            predictions = [newest[key] for key in fresh if key[0] == project]
            self._log.add(project, logged(predictions))
            is_linked = self._log.link_images(project, images_of(self._embedder, predictions))
            appends += 1 + is_linked
        after = self._log.version() if appends else version
        if after == version._replace(number=version.number + appends):
            for key in newest:
                self._digests[key] = digests[key]
                self._digests.move_to_end(key)
            while len(self._digests) > REMEMBERED:
                self._digests.popitem(last=False)
        else:
            # Someone else changed the log meanwhile, perhaps what was just appended.
            self._digests.clear()
        self._version = after


def _digest(prediction: Prediction) -> bytes:
    """A hash of all that is logged of a prediction."""
    return hashlib.sha256(repr((prediction.logged(), prediction.images)).encode()).digest()
