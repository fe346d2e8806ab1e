"""Model versions: what they are made of, and what it costs to ask for one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.encoders.table import OFFLINE, Row
from backend.errors import StoreError
from backend.inference.frozen_statistics import FROM as STATISTICS_FROM
from backend.inference.versions import METHOD
from backend.labels.config import parse_config
from backend.runtime import Runtime
from backend.storage.artifacts import Artifacts
from backend.storage.head_registry import ZERO_SHOT
from backend.storage.project_state import ProjectState
from tests.support.builders import choices_config, data_uri, task
from tests.support.fixtures import MakeRuntime
from tests.support.heads import head_set
from tests.support.predicting import NO_IMAGE, PROJECT, items, predict, version
from tests.support.stub_encoder import StubEncoder


def test_a_version_names_its_encoder_and_stays_the_same(make_runtime: MakeRuntime):
    first = version(make_runtime(), choices_config())
    assert first.startswith("stub-z-")
    assert version(make_runtime(), choices_config()) == first
    assert version(make_runtime(), choices_config(), "2.9999") == first


def test_a_version_is_found_without_loading_the_model(make_runtime: MakeRuntime):
    encoder = StubEncoder()

    def load() -> None:
        raise AssertionError("the model was asked for")

    encoder.load = load  # type: ignore[method-assign]
    encoder.before = load
    encoder.encode_texts = lambda texts: load()  # type: ignore[method-assign,assignment,return-value]
    assert version(make_runtime(encoder), choices_config())


def test_a_version_changes_with_all_that_decides_scores(make_runtime: MakeRuntime, tmp_path: Path):
    fitted = make_runtime(store=tmp_path / "fitted")
    fitted.versions.save_table(
        replace(OFFLINE, with_statistics=Row(1, -2), without_statistics=Row(1, -2))
    )
    versions = [
        version(make_runtime(), choices_config()),
        version(make_runtime(), choices_config("cat", "dog")),
        version(make_runtime(threshold=0.5), choices_config()),
        version(make_runtime(threshold=0.6), choices_config()),
        version(make_runtime(StubEncoder("stub-2")), choices_config()),
        version(fitted, choices_config()),
    ]
    assert len(set(versions)) == len(versions)


def test_other_settings_do_not_change_a_version(make_runtime: MakeRuntime):
    plain = version(make_runtime(), choices_config())
    assert version(make_runtime(fetch_workers=2, batch_size=3), choices_config()) == plain


MANY = [task(number) for number in range(STATISTICS_FROM)]


def test_statistics_are_frozen_once_and_make_a_version_of_their_own(make_runtime: MakeRuntime):
    runtime, config = make_runtime(), choices_config()
    before = predict(runtime, config, MANY[:2])
    parsed = parse_config(config)
    assert runtime.versions.statistics.freeze(parsed, PROJECT, MANY, runtime.embedder.embed)
    after = predict(runtime, config, MANY[:2])
    assert before[0].model_version != after[0].model_version
    assert before[0].probabilities != after[0].probabilities
    assert version(runtime, config, "2.1") == before[0].model_version
    # Later images change nothing.
    others = [task(100 + number) for number in range(STATISTICS_FROM)]
    assert runtime.versions.statistics.freeze(parsed, PROJECT, others, runtime.embedder.embed)
    assert items(predict(make_runtime(), config, MANY[:2])) == items(after)


def test_statistics_wait_for_enough_images(make_runtime: MakeRuntime):
    runtime, config = make_runtime(), parse_config(choices_config())
    broken = [*MANY[:-1], NO_IMAGE, MANY[0]]
    assert not runtime.versions.statistics.freeze(config, PROJECT, broken, runtime.embedder.embed)
    assert not runtime.versions.statistics.freeze(config, PROJECT, [], runtime.embedder.embed)
    assert runtime.versions.statistics.freeze(config, PROJECT, MANY, runtime.embedder.embed)


def test_two_freezes_at_once_agree(make_runtime: MakeRuntime):
    config = parse_config(choices_config())
    runtimes = [make_runtime(), make_runtime()]
    spans = [MANY, [task(50 + number) for number in range(STATISTICS_FROM)]]
    threads = [
        threading.Thread(
            target=one.versions.statistics.freeze, args=(config, PROJECT, span, one.embedder.embed)
        )
        for one, span in zip(runtimes, spans, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {one.versions.get(config, PROJECT).name for one in runtimes}
    assert len(found) == 1


def test_projects_with_strange_names_keep_their_statistics_apart(make_runtime: MakeRuntime):
    runtime, config = make_runtime(), parse_config(choices_config())
    before = version(runtime, choices_config(), "../../x")
    assert runtime.versions.statistics.freeze(config, "../../x", MANY, runtime.embedder.embed)
    assert version(runtime, choices_config(), "../../x") != before
    assert version(runtime, choices_config(), "") == before
    assert not list(Path(runtime.settings.store).parent.glob("*.json"))


def test_the_method_number_is_part_of_the_version(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
):
    before = version(make_runtime(), choices_config())
    monkeypatch.setattr("backend.inference.versions.METHOD", METHOD + 1)
    assert version(make_runtime(), choices_config()) != before


def test_copies_of_one_image_freeze_no_statistics(make_runtime: MakeRuntime):
    runtime, config = make_runtime(), parse_config(choices_config())
    copies = [{**task(1), "id": number} for number in range(STATISTICS_FROM + 5)]
    for number, one in enumerate(copies):
        # Equal pixels at addresses that differ.
        one["data"] = {"image": data_uri(1).replace("data:image/png", f"data:image/png;n={number}")}
    found, _ = runtime.embedder.embed([one["data"]["image"] for one in copies])
    assert len({one.image.tobytes() for one in found.values()}) == 1
    assert not runtime.versions.statistics.freeze(config, PROJECT, copies, runtime.embedder.embed)
    assert runtime.versions.statistics.freeze(
        config, PROJECT, [*MANY, *copies], runtime.embedder.embed
    )


def test_a_project_name_of_any_length_is_answered(make_runtime: MakeRuntime):
    runtime = make_runtime()
    long = "x" * 5000
    assert version(runtime, choices_config(), long) == version(runtime, choices_config(), "1.1")
    assert runtime.versions.statistics.freeze(
        parse_config(choices_config()), long, MANY, runtime.embedder.embed
    )


# What a repeated request costs


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Reads of JSON artifacts, as ``method name``; those within another one count once."""
    log: list[str] = []
    depth = 0

    def counted(method: str) -> Callable[..., Any]:
        original = getattr(Artifacts, method)

        def read(self: Artifacts, name: str, *arguments: Any, **options: Any) -> Any:
            nonlocal depth
            if not depth:
                log.append(f"{method} {name}")
            depth += 1
            try:
                return original(self, name, *arguments, **options)
            finally:
                depth -= 1

        return read

    for method in ("read", "stamp", "names", "folder_names"):
        monkeypatch.setattr(Artifacts, method, counted(method))
    return log


def serve_head(runtime: Runtime, name: str, scale: float = 1.0) -> None:
    heads, encoder = runtime.versions.heads, runtime.encoder
    heads.save(PROJECT, head_set(name, encoder.id, encoder.dim, scale))
    heads.set_serving(PROJECT, name)


def test_a_repeated_prediction_of_an_unchanged_project_costs_one_read(
    make_runtime: MakeRuntime, reads: list[str]
):
    runtime, config = make_runtime(), choices_config()
    runtime.versions.statistics.freeze(parse_config(config), PROJECT, MANY, runtime.embedder.embed)
    serve_head(runtime, "h1")
    first = predict(runtime, config, MANY[:2])
    reads.clear()
    assert items(predict(runtime, config, MANY[:2])) == items(first)
    assert reads == ["read generation"]


def test_projects_configs_and_heads_have_versions_of_their_own(make_runtime: MakeRuntime):
    runtime, config = make_runtime(), choices_config()
    serve_head(runtime, "h1")
    names = {
        version(runtime, config),
        version(runtime, config, "2.1"),
        version(runtime, choices_config("cat")),
        version(runtime, choices_config("cat"), "2.1"),
    }
    assert len(names) == 4
    zero_shot = runtime.versions.get(parse_config(config), PROJECT, ZERO_SHOT).name
    assert zero_shot == version(runtime, config, "2.1")


CHANGES: dict[str, Callable[[Runtime], Any]] = {
    "statistics": lambda runtime: runtime.versions.statistics.freeze(
        parse_config(choices_config()), PROJECT, MANY, runtime.embedder.embed
    ),
    "table": lambda runtime: runtime.versions.save_table(
        replace(OFFLINE, with_statistics=Row(1, -2), without_statistics=Row(1, -2))
    ),
    "known field": lambda runtime: ProjectState(runtime.store, PROJECT).set_known_field("category"),
    "promotion": lambda runtime: serve_head(runtime, "h2", 2.0),
    "rollback": lambda runtime: runtime.versions.heads.set_serving(
        PROJECT, ZERO_SHOT, rollback=True
    ),
    "purge": lambda runtime: runtime.prediction_log.purge(PROJECT),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_what_another_process_changes_is_followed_by_the_next_request(
    make_runtime: MakeRuntime, change: Callable[[Runtime], Any]
):
    server, worker, config = make_runtime(), make_runtime(), choices_config()
    serve_head(worker, "h1")
    before = version(server, config)
    assert version(server, config) == before
    change(worker)
    assert version(server, config) == version(worker, config) != before


def test_files_that_were_restored_by_hand_are_followed_after_a_while(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
):
    runtime, config = make_runtime(), choices_config()
    before = version(runtime, config)
    serve_head(runtime, "h1")
    assert version(runtime, config) != before
    (Path(runtime.store.uri) / "projects" / PROJECT / "serving.json").unlink()
    assert version(runtime, config) != before
    monkeypatch.setattr("backend.inference.versions.REBUILD_SECONDS", 0.0)
    assert version(runtime, config) == before


def test_a_head_trained_before_statistics_were_frozen_goes_on_serving(make_runtime: MakeRuntime):
    runtime, config = make_runtime(), parse_config(choices_config())
    serve_head(runtime, "h1")
    assert runtime.versions.heads.get(PROJECT, "h1").controls["tags"].head.card.statistics == "none"
    runtime.versions.statistics.freeze(config, PROJECT, MANY, runtime.embedder.embed)
    current = runtime.versions.get(config, PROJECT)
    assert set(current.heads) == set(current.statistics) == {"tags"}


def test_statistics_whose_writer_died_before_the_marker_changed_are_followed(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
):
    runtime, server = make_runtime(), make_runtime()
    config = parse_config(choices_config())
    before = server.versions.get(config, PROJECT).name

    def freeze() -> bool:
        return runtime.versions.statistics.freeze(config, PROJECT, MANY, runtime.embedder.embed)

    def broken() -> None:
        raise StoreError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(runtime.store.generation, "change", broken)
        with pytest.raises(StoreError):
            freeze()
    assert freeze()
    after = server.versions.get(config, PROJECT).name
    assert before != after == runtime.versions.get(config, PROJECT).name


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'"x"', b"\0" * 40])
def test_a_damaged_marker_is_written_anew_by_the_next_change(
    make_runtime: MakeRuntime, content: bytes
):
    runtime, config = make_runtime(), choices_config()
    before = version(runtime, config)
    (Path(runtime.store.uri) / "generation.json").write_bytes(content)
    assert version(runtime, config) == before
    serve_head(runtime, "h1")
    assert version(runtime, config) == version(make_runtime(), config) != before


@pytest.mark.parametrize(
    "fields", [{"spread": float("nan")}, {"spread": 0.0}, {"global_std": [0.0, 1.0, 1.0]}]
)
def test_statistics_that_would_give_no_probabilities_are_refused(
    make_runtime: MakeRuntime, fields: dict[str, Any]
):
    runtime, config = make_runtime(), parse_config(choices_config())
    runtime.versions.statistics.freeze(config, PROJECT, MANY, runtime.embedder.embed)
    (file,) = (Path(runtime.store.uri) / "statistics" / PROJECT).iterdir()
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    runtime.store.generation.change()
    with pytest.raises(StoreError, match="damaged"):
        runtime.versions.get(config, PROJECT)


def test_a_head_for_embeddings_of_another_size_is_damaged(make_runtime: MakeRuntime):
    runtime = make_runtime()
    runtime.versions.heads.save(
        PROJECT, head_set("h1", runtime.encoder.id, runtime.encoder.dim + 1)
    )
    with pytest.raises(StoreError, match="another size"):
        runtime.versions.get(parse_config(choices_config()), PROJECT, "h1")
