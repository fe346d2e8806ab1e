"""From embeddings to what annotators see: score, log, import, verify, show, in this order.

The order makes every step repeatable, and no version is shown that is not complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from backend.errors import ImageError, ImageReason, LabelConfigError
from backend.inference.bank_drawing import draw_banks
from backend.inference.confidence_freezing import freeze_confidences
from backend.inference.frozen_statistics import UP_TO as STATISTICS_UP_TO
from backend.inference.prediction import Prediction, logged
from backend.inference.predictor import Predictor
from backend.labels.config import LabelConfig, parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.importing import Importer, duplicates_note, show
from backend.labelstudio.projects import project_key
from backend.messages.catalogue import localized
from backend.messages.message import Message
from backend.runtime import Runtime
from backend.storage.score_files import ScoreFiles
from backend.storage.tables import chunks
from jobs.listing import (
    Task,
    image_links,
    link_images,
    still_there,
    tasks_in_scope,
    to_predict,
)
from jobs.rewriting import Rewriting, add_note, changed_note
from jobs.run import ENDED, Run, Trigger
from jobs.run_files import RunFiles
from jobs.run_log import RunLog
from jobs.score_keeping import ScoreKeeper, tasks_to_score


def promote(runs: RunLog, run: Run, runtime: Runtime, files: RunFiles) -> None:
    """Give each task its prediction of the current version, and let the project show it.

    Args:
        runs: where progress is recorded.
        run: whose tasks; their images are in the store as far as they can be had, and its project
            is locked for imports by the caller.
        runtime: of this process.
        files: of the run.

    Raises:
        LabelConfigError: the labels were changed since the run began.
        StudioError: Label Studio refuses a step, or does not answer.
        StoreError: the store cannot be read or written.
    """
    studio = LabelStudioClient(runtime.settings)
    project = studio.projects.get(run.project)
    config = parse_config(project["label_config"])
    require_labels_of(run, config)
    key, language = project_key(project), runtime.settings.language
    first = _first_tasks(files, run)
    runtime.versions.statistics.freeze(config, key, first, runtime.embedder.stored)
    draw_banks(
        runtime.versions,
        runtime.versions.get(config, key, run.head or None),
        runtime.prediction_log,
    )
    current = runtime.versions.get(config, key, run.head or None)
    freeze_confidences(runtime.versions, current, first, runtime.embedder)
    predictor = Predictor(runtime.versions.get(config, key, run.head or None), runtime.embedder)
    version = predictor.version.name
    # Freezing may have changed it; a run that has nothing to import still names what is shown.
    runs.note(run.id, model_version=version)
    importer = Importer(studio, run.project, version)
    if run.sending:
        # A process that died has sent something that Label Studio may still be working on.
        importer.recover(run.sent_to, run.sending)
        runs.note(run.id, imported=run.imported + importer.created, sending=0)
    rewriting = Rewriting(runs, run, runtime, studio, version) if run.revalidate else None
    score_files = ScoreFiles(runtime.store)
    keeper = ScoreKeeper(
        score_files, runtime.prediction_log, key, predictor.version, replaces=run.revalidate
    )
    delivery = _Delivery(
        runs, run, runtime, predictor, importer, keeper=keeper, rewriting=rewriting
    )
    is_another = version != run.planned_version
    lists_again = is_another and bool(run.left_out or score_files.tasks(key, run.planned_version))
    delivery.take_all(files, studio, lists_again=lists_again)
    before = str(project["model_version"])
    if before != version:
        # Those of the version that is shown stay, should this one be withdrawn.
        score_files.keep(key, {version, before})
    reviewed = _reviewed_before_the_change(run, files)
    if reviewed:
        add_note(runs, run, localized(changed_note(reviewed), language))
    now = runs.get(run.id)
    if now is None or now.state in ENDED or not (importer.there or run.head):
        # Nothing to show, or cancelled meanwhile: what was imported stays unseen.
        return
    expected = delivery.seen - set(delivery.failures)
    if not importer.is_complete(expected):
        # Tasks that were deleted meanwhile are nobody's fault.
        alive = {int(task["id"]) for task in studio.tasks.iterate(run.project)}
        double = importer.verify(expected & alive)
        if double:
            add_note(runs, run, localized(duplicates_note(run.project, double), language))
    require_labels_of(run, parse_config(studio.projects.get(run.project)["label_config"]))
    heads = runtime.versions.heads
    if (
        run.trigger == Trigger.TRAINING
        and not heads.candidate(key)
        and heads.serving(key) != run.head
    ):
        # A rollback has withdrawn it.
        note = Message("{head} was withdrawn meanwhile and is not put into use.", head=run.head)
        add_note(runs, run, localized(note, language))
        return
    # Before Label Studio reports our change of the project, which does not change its labels.
    runs.set_config(run.project, config.digest)
    if importer.there:
        show(studio, run.project, version)
    if run.head:
        heads.set_serving(key, run.head, rollback=run.trigger != Trigger.TRAINING)


def require_labels_of(run: Run, config: LabelConfig) -> None:
    """Refuse to go on with other labels than those that the run began with.

    Raises:
        LabelConfigError: they were changed meanwhile.
    """
    if config.digest != run.config:
        # Without a queue there is no ls-clip predict.
        command = "connect" if run.trigger == Trigger.CONNECT else "predict"
        raise LabelConfigError(
            Message("The labeling config was changed while the tasks were predicted."),
            Message(
                "Run ls-clip {command} {project} again; what is embedded stays.",
                command=command,
                project=run.project,
            ),
        )


class _Delivery:
    """Scores tasks and sends their predictions, many at once."""

    def __init__(
        self,
        runs: RunLog,
        run: Run,
        runtime: Runtime,
        predictor: Predictor,
        importer: Importer,
        *,
        keeper: ScoreKeeper,
        rewriting: Rewriting | None,
    ) -> None:
        self._runs, self._run, self._runtime = runs, run, runtime
        self._predictor, self._importer, self._keeper = predictor, importer, keeper
        self._rewriting = rewriting
        self._waiting: list[Prediction] = []
        self.seen: set[int] = set()
        self.failures: dict[int, dict[str, str]] = runs.failures(run.id)
        # A stored image whose host could not be asked: the task keeps its prediction, and people
        # should know.
        self._partial = set(self.failures) if run.revalidate else set()

    def take_all(self, files: RunFiles, studio: LabelStudioClient, *, lists_again: bool) -> None:
        """Predict and score all tasks of the run that are still there; see `take`.

        Args:
            files: of the run.
            studio: lists tasks again.
            lists_again: whether the version has changed since tasks were left out, because they
                had a prediction or scores of the one before: they need others.
        """
        run, log, embedder = self._run, self._runtime.prediction_log, self._runtime.embedder
        version = self._predictor.version
        gone: set[str] = set()
        for number in range(run.shards):
            listed = files.tasks(number)
            tasks = still_there(log, run.key, listed)
            there = {task["id"] for task in tasks}
            deleted = [task for task in listed if task["id"] not in there]
            gone |= {address for _, address in image_links(embedder, deleted)}
            scores = files.scores(number, version.name)
            self._keeper.add(scores or {})
            made = files.predictions(number, version.name)
            self.take(tasks, made=made, scored=scores is not None)
        if lists_again:
            to_score = tasks_to_score(version.config, self._keeper.tasks, log.tasks(run.key))
            rest = tasks_in_scope(
                studio,
                run.project,
                run.scope,
                version.config,
                frozenset(self.seen),
                to_score=to_score,
                known_field=version.known_field,
            )
            for part in chunks(rest, self._runtime.settings.shard_size):
                link_images(log, run.key, embedder, to_predict(part))
                self.take(part, made={}, fetch=True)
        self.close()
        self._keeper.write()
        if gone:
            # Of tasks that were deleted after they were listed.
            log.erase_unlinked(gone)

    def take(
        self,
        tasks: list[Task],
        made: Mapping[int, Prediction],
        *,
        scored: bool = False,
        fetch: bool = False,
    ) -> None:
        """Predict the tasks that have no prediction yet, or one that may be out of date.

        The scores of the others are kept if they are not yet.

        Args:
            tasks: of the run.
            made: task id -> a prediction that was computed early.
            scored: whether scores were kept early, as far as they can be had.
            fetch: whether images that are not in the store are fetched.
        """
        fresh = [task for task in to_predict(tasks) if task["id"] not in self.seen]
        self.seen |= {task["id"] for task in fresh}
        if self._rewriting is not None:
            there = [task for task in fresh if task["id"] in self._importer.there]
            self._rewriting.take(self._stored(there, made))
        missing = [task for task in fresh if task["id"] not in self._importer.there]
        rest = [task for task in missing if task["id"] not in made]
        predictions = [made[task["id"]] for task in missing if task["id"] in made]
        if rest:
            predict = self._predictor.predict if fetch else self._predictor.predict_stored
            predictions += self._kept(predict(rest))
        for prediction in predictions:
            assert prediction.task is not None
            if prediction.result is not None:
                # Thousands wait: without the scores that they were made from.
                self._waiting.append(replace(prediction, scored=()))
                if prediction.failure is None:
                    if prediction.task not in self._partial:
                        self.failures.pop(prediction.task, None)
                else:
                    # It lacks one of several images, which people should know.
                    self._partial.add(prediction.task)
            elif prediction.task not in self.failures:
                # What could not be embedded has its reason already.
                failure = prediction.failure
                if failure is None or failure.reason is ImageReason.TIMEOUT:
                    failure = _GONE
                self.failures[prediction.task] = failure.as_dict(self._runtime.settings.language)
        if len(self._waiting) >= self._runtime.settings.import_size:
            self._send()
        linked = {task["id"] for task in tasks}
        to_score = tasks_to_score(self._predictor.version.config, self._keeper.tasks, linked)
        unscored = [] if scored else [task for task in tasks if task["id"] in to_score]
        if unscored:
            self._kept(self._predictor.predict_stored(unscored))

    def _kept(self, predictions: list[Prediction]) -> list[Prediction]:
        """The same predictions, once their scores are kept."""
        self._keeper.add_predictions(predictions)
        return predictions

    def _stored(self, tasks: list[Task], made: Mapping[int, Prediction]) -> list[Prediction]:
        rest = [task for task in tasks if task["id"] not in made]
        predictions = self._kept(self._predictor.predict_stored(rest)) if rest else []
        return predictions + [made[task["id"]] for task in tasks if task["id"] in made]

    def close(self) -> None:
        """Send what is left, and record why tasks have no prediction."""
        self._send()
        if self._rewriting is not None:
            self._rewriting.carry_out()
        for task in self._importer.there - self._partial:
            self.failures.pop(task, None)
        for task, reason in self._importer.dropped.items():
            self.failures[task] = {
                "code": "dropped",
                "message": localized(reason, self._runtime.settings.language),
                "fix": "",
            }
        self._runs.set_failures(self._run.id, self.failures)

    def _send(self) -> None:
        if not self._waiting:
            return
        self._runtime.prediction_log.add(self._run.key, logged(self._waiting))
        self._runs.note(self._run.id, sending=len(self._waiting), sent_to=len(self._importer.there))
        self._importer.add([prediction.as_import() for prediction in self._waiting])
        made = self._run.imported + self._importer.created
        self._runs.note(self._run.id, imported=made, sending=0)
        self._waiting = []


def _reviewed_before_the_change(run: Run, files: RunFiles) -> list[int]:
    """Ids of the annotated tasks of which an image has changed."""
    if not run.changed:
        return []
    return sorted(
        task["id"]
        for number in range(run.shards)
        for task in files.tasks(number)
        if task.get("annotated") and not files.changed(number).isdisjoint(task["images"])
    )


def _first_tasks(files: RunFiles, run: Run) -> list[Task]:
    first: list[Task] = []
    for number in range(run.shards):
        if len(first) >= STATISTICS_UP_TO:
            break
        first += to_predict(files.tasks(number))
    return first


_GONE = ImageError(
    ImageReason.NOT_STORED,
    Message("The embedding of the task's image is not in the store any more."),
    Message("Give all workers the same LS_CLIP_STORE, then run ls-clip predict again."),
)
