"""The bank of images that vote: when it is drawn, that it is frozen, and how it is erased."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.errors import StoreError
from backend.inference import bank_cache, bank_drawing
from backend.inference.bank_drawing import draw_banks
from backend.inference.model_version import ModelVersion
from backend.labels.config import parse_config
from backend.runtime import Runtime
from backend.storage.check import check_store
from backend.storage.vectors import Embedding
from backend.vlpl import region_classifier
from backend.vlpl.neighbours import WEAK_FROM
from tests.support.builders import choices_config, data_uri, task
from tests.support.fixtures import MakeRuntime
from tests.support.predicting import PROJECT, items, predict

CONFIG = choices_config()
TASKS = [task(number) for number in range(1, WEAK_FROM + 21)]


def present(runtime: Runtime) -> ModelVersion:
    return runtime.versions.get(parse_config(CONFIG), PROJECT)


def filled(runtime: Runtime, tasks: list[dict[str, Any]]) -> None:
    """Embed the tasks' images and note whose they are, as a run does."""
    values = {number: data_uri(number) for number in (one["id"] for one in tasks)}
    runtime.embedder.fill(list(values.values()))
    runtime.prediction_log.link_images(
        PROJECT, ((number, runtime.embedder.address(value)) for number, value in values.items())
    )
    embed = runtime.embedder.stored
    runtime.versions.statistics.freeze(parse_config(CONFIG), PROJECT, tasks[:30], embed)


def answers(runtime: Runtime, tasks: list[dict[str, Any]]) -> list[Any]:
    found: list[Any] = json.loads(items(predict(runtime, CONFIG, tasks)))
    return found


def drawn(runtime: Runtime) -> bool:
    return draw_banks(runtime.versions, present(runtime), runtime.prediction_log)


def records(runtime: Runtime) -> list[dict[str, Any]]:
    folder = Path(runtime.store.uri) / "banks" / PROJECT
    return [json.loads(file.read_text()) for file in folder.glob("*.json")]


@pytest.fixture
def runtime(make_runtime: MakeRuntime) -> Runtime:
    """With a project of 120 images and their bank."""
    made = make_runtime()
    filled(made, TASKS)
    assert drawn(made)
    return made


def test_a_project_gets_a_bank_as_soon_as_it_has_enough_images(make_runtime: MakeRuntime):
    made = make_runtime()
    filled(made, TASKS[: WEAK_FROM - 1])
    without = present(made)
    assert not drawn(made) and not without.banks
    filled(made, TASKS[: WEAK_FROM + 1])
    assert drawn(made)
    assert present(made).banks and present(made).name != without.name


def test_the_same_version_gives_the_same_bytes_live_in_bulk_and_after_a_restart(
    runtime: Runtime, make_runtime: MakeRuntime
):
    bulk = answers(runtime, TASKS)
    live = [answers(runtime, [one])[0] for one in TASKS[:20]]
    assert live == bulk[:20]
    again = make_runtime()
    assert present(again).name == present(runtime).name
    assert answers(again, TASKS[:7]) == bulk[:7]
    # One that is in no bank.
    late = task(500)
    assert answers(again, [late]) == answers(runtime, [late])


def test_similar_images_change_a_score(runtime: Runtime):
    version = present(runtime)
    (control,) = version.config.controls
    embeddings, _ = runtime.embedder.stored([data_uri(1), data_uri(2)])
    some = list(embeddings.values())
    voted = version.probabilities(control, some)
    row = version.row(control)
    alone = torch.sigmoid(row.slope * version.z(control, some).double() + row.offset).numpy()
    assert abs(voted - alone).max() > 1e-4
    votes = version.votes(control, torch.tensor([one.image.tolist() for one in some]).half())
    assert votes is not None
    scores = votes.on_scores(version.z(control, some))
    assert voted == pytest.approx(torch.sigmoid(row.slope * scores + row.offset).numpy(), abs=1e-6)


def test_a_bank_is_drawn_again_only_when_its_project_has_grown_by_half(runtime: Runtime):
    before = present(runtime).name
    filled(runtime, TASKS + [task(number) for number in range(200, 259)])
    assert not drawn(runtime) and present(runtime).name == before
    filled(runtime, [task(300)])
    assert drawn(runtime) and present(runtime).name != before
    (record,) = records(runtime)
    assert record["drawn_from"] == record["images"] == 180


def test_copies_of_an_image_vote_once(make_runtime: MakeRuntime):
    made = make_runtime()
    filled(made, TASKS)
    # The same photo behind other addresses.
    made.prediction_log.link_images(
        PROJECT, [(900 + n, made.embedder.address(data_uri(1))) for n in range(50)]
    )
    assert drawn(made)
    (record,) = records(made)
    assert record["images"] == len(TASKS)


def test_with_many_images_a_classifier_of_regions_joins_in(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(region_classifier, "FROM", 110)
    made = make_runtime()
    filled(made, TASKS)
    before = present(made)
    (control,) = before.config.controls
    some = runtime_embeddings(made)
    plain = before.z(control, some)
    assert drawn(made)
    assert not torch.equal(present(made).z(control, some), plain)
    bulk = answers(made, TASKS)
    assert [answers(made, [one])[0] for one in TASKS[:10]] == bulk[:10]
    assert answers(make_runtime(), TASKS[:10]) == bulk[:10]


def runtime_embeddings(runtime: Runtime) -> list[Embedding]:
    return list(runtime.embedder.stored([data_uri(n) for n in range(1, 6)])[0].values())


def test_a_purged_image_leaves_the_bank(runtime: Runtime):
    before = present(runtime)
    files = set((Path(runtime.store.uri) / "banks" / PROJECT).glob("*.safetensors"))
    key = runtime.store.vectors.keys_of([runtime.embedder.address(data_uri(3))])
    runtime.prediction_log.purge(PROJECT, [3])
    after = present(runtime)
    assert after.name != before.name
    (record,) = records(runtime)
    assert record["images"] == len(TASKS) - 1 and record["previous"] == ""
    (file,) = (Path(runtime.store.uri) / "banks" / PROJECT).glob("*.safetensors")
    assert file not in files
    (gone,) = key.values()
    assert gone.encode() not in file.read_bytes()
    assert predict(runtime, CONFIG, TASKS[:2])


def test_an_image_that_is_purged_while_a_bank_is_drawn_is_not_in_it(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
):
    made = make_runtime()
    filled(made, TASKS)
    draw = bank_drawing._drawn

    def purging(*arguments: Any) -> Any:
        bank = draw(*arguments)
        made.prediction_log.purge(PROJECT, [3])
        return bank

    monkeypatch.setattr(bank_drawing, "_drawn", purging)
    assert drawn(made)
    (record,) = records(made)
    assert record["images"] == len(TASKS) - 1


def test_a_purge_of_other_images_reads_no_bank(runtime: Runtime, monkeypatch: pytest.MonkeyPatch):
    runtime.embedder.fill([data_uri(900)])
    runtime.prediction_log.link_images(PROJECT, [(900, runtime.embedder.address(data_uri(900)))])

    def refused(*_: Any) -> Any:
        raise AssertionError("it is read")

    before = present(runtime).name
    monkeypatch.setattr("backend.storage.banks.StoredBank.from_bytes", refused)
    assert runtime.prediction_log.purge(PROJECT, [900]).images == 1
    assert present(runtime).name == before


def test_a_purged_project_leaves_no_bank(runtime: Runtime):
    runtime.prediction_log.purge(PROJECT)
    assert not (Path(runtime.store.uri) / "banks" / PROJECT).exists()
    assert not present(runtime).banks


def test_the_bank_that_was_used_before_stays_for_those_who_still_score_with_it(runtime: Runtime):
    old = present(runtime)
    filled(runtime, [task(number) for number in range(200, 300)])
    assert drawn(runtime)
    (control,) = old.config.controls
    fresh = bank_cache.BankCache(runtime.versions._banks)
    assert fresh.get(PROJECT, old.banks[control.name]).z.shape == (len(TASKS), 3)


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign"])
def test_a_damaged_bank_is_named(runtime: Runtime, make_runtime: MakeRuntime, damage: str):
    (file,) = (Path(runtime.store.uri) / "banks" / PROJECT).glob("*.safetensors")
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:1000] if damage == "cut" else b"no bank")
    with pytest.raises(StoreError, match=file.name) as caught:
        predict(make_runtime(), CONFIG, TASKS[:1])
    assert "next run" in caught.value.fix


@pytest.mark.parametrize("damage", ["record", "file"])
def test_a_repair_sets_a_damaged_bank_aside_and_the_next_run_draws_another(
    runtime: Runtime, damage: str
):
    folder = Path(runtime.store.uri) / "banks" / PROJECT
    (file,) = folder.glob("*.json" if damage == "record" else "*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    (problem,) = [*check_store(runtime.store)]
    assert problem.place.startswith(f"banks/{PROJECT}/") and "--repair" in problem.fix
    (repaired,) = [*check_store(runtime.store, repair=True)]
    assert "damaged/" in repaired.repaired
    assert not [*check_store(runtime.store)] and not present(runtime).banks
    assert drawn(runtime) and answers(runtime, TASKS[:1])


def test_a_damaged_bank_is_no_reason_not_to_forget(runtime: Runtime):
    (file,) = (Path(runtime.store.uri) / "banks" / PROJECT).glob("*.safetensors")
    file.write_bytes(b"no bank")
    runtime.prediction_log.purge(PROJECT, [3])
    assert not present(runtime).banks and not file.exists()
    assert answers(runtime, TASKS[:1])


def test_a_damaged_record_of_a_bank_is_no_reason_not_to_forget_either(runtime: Runtime):
    folder = Path(runtime.store.uri) / "banks" / PROJECT
    (file,) = folder.glob("*.json")
    file.write_text("{")
    draft = folder / f"{'1' * 16}.safetensors.{'0' * 32}"
    draft.write_bytes(b"an embedding")
    runtime.prediction_log.purge(PROJECT, [3])
    assert not folder.exists() and not draft.exists()
    assert runtime.prediction_log.tasks(PROJECT, [3]) == set()


def test_banks_in_memory_are_bounded(runtime: Runtime, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bank_cache, "MAX_BYTES", 1)
    cache = bank_cache.BankCache(runtime.versions._banks)
    (first,) = present(runtime).banks.values()
    one = cache.get(PROJECT, first)
    assert cache.get(PROJECT, first) is one
    filled(runtime, [task(number) for number in range(200, 300)])
    assert drawn(runtime)
    (second,) = present(runtime).banks.values()
    cache.get(PROJECT, second)
    assert cache.get(PROJECT, first) is not one
