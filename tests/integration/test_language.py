"""What people read in Japanese: commands, lines beside suggestions, and what workers keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from tenacity import wait_none

from backend.errors import ImageError, ImageReason
from backend.inference.evidence import BLIND_LINES
from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.messages.catalogue import Language, localized
from backend.messages.message import Message
from backend.runtime import Runtime
from jobs import enqueue, predict_job, queue
from jobs.run import Scope, Trigger
from jobs.run_store import RunStore
from jobs.training_state import Outcome, TrainingStore
from tests.support.builders import EVIDENCE, choices_config, data_uri, make_settings, task
from tests.support.commands import run_command
from tests.support.english import said_in_english
from tests.support.fixtures import Cli, MakeRuntime
from tests.support.processes import free_port
from tests.support.stub_label_studio import KEY, PROJECT, StubStudio

LEFT_OUT = '<Choices name="parts" toName="image" perRegion="true"><Choice value="a"/></Choices>'
BROKEN = "data:image/png;base64,iVBORw0KGgo="
JAPANESE = {"LS_CLIP_LANGUAGE": "ja"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.labelstudio.importing.SETTLE_SECONDS", 0.2)
    monkeypatch.setattr("backend.labelstudio.transport.wait_exponential", lambda **_: wait_none())


def test_connect_and_doctor_speak_japanese(
    cli: Cli, make_runtime: MakeRuntime, studio: StubStudio, monkeypatch: pytest.MonkeyPatch
):
    make_runtime()
    for step in ("register_backend", "make_webhook", "show_scores"):
        monkeypatch.setattr(f"backend.projects.connect.{step}", lambda *_: set())
    studio.config = choices_config("cat", "犬", extra=LEFT_OUT)
    studio.tasks = {1: {"image": data_uri(1)}, 2: {"image": data_uri(2)}, 3: {"image": BROKEN}}
    # The log stays English.
    alone = {**JAPANESE, "LS_CLIP_REDIS_URL": "", "LS_CLIP_LOG_LEVEL": "ERROR"}
    code, said = cli("connect", str(PROJECT), **alone)
    assert code == 1
    for part in (
        "バックエンドを登録しています ...",
        "タスク 3 件中 2 件に",
        "注意: <Choices name='parts'>: 画像ではなく、領域にラベルを付けます。",
        "ラベル 1 件を読めません: 犬。",
        "タスク 3: PNG ファイルが途中(8 バイト)で終わっています。 対処: 完全なコピー",
        "タスクはランダムな順序で出されます。",
    ):
        assert part in said
    assert said_in_english(said) == []

    code, said = cli("doctor", str(PROJECT), **alone)
    assert code == 2
    for part in ("バックエンドが応答しません", "エラー", "正常", "情報"):
        assert part in "".join(said.split())
    assert said_in_english(said) == []

    code, said = cli("doctor", str(PROJECT), "--json", **alone)
    findings = {finding["check"]: finding for finding in json.loads(said)}
    assert findings["backend"]["severity"] == "error"
    assert findings["backend"]["fix"].startswith("ls-clip serve を起動し")


def test_an_error_of_a_command_is_in_japanese_with_its_titles(cli: Cli):
    code, said = cli("connect", "1", LABEL_STUDIO_URL=f"http://127.0.0.1:{free_port()}", **JAPANESE)
    assert code == 1
    assert "エラー: " in said and "の Label Studio が応答しません" in said
    assert "対処: Label Studio を起動するか、LABEL_STUDIO_URL を直してください。" in said


def test_settings_that_cannot_work_are_told_in_the_language_that_they_name(tmp_path: Path):
    wrong = {"LS_CLIP_PORT": "70000", "LABEL_STUDIO_URL": "nowhere"}
    done = run_command("doctor", "--json", cwd=tmp_path, **JAPANESE, **wrong)
    [finding] = json.loads(done.stdout)
    assert "LS_CLIP_PORT: 65535 以下でなければなりません" in finding["what"]
    assert "http:// または https:// で始まり" in finding["what"]
    assert said_in_english(done.stdout) == []
    unknown = run_command("doctor", "--json", cwd=tmp_path, LS_CLIP_LANGUAGE="tlh")
    assert "LS_CLIP_LANGUAGE: Input should be 'en' or 'ja'" in unknown.stdout


# Beside the suggestions


def lines_of(runtime: Runtime, xml: str, *tasks: Any) -> list[list[str]]:
    config = parse_config(xml)
    predictor = Predictor(runtime.versions.get(config, KEY), runtime.embedder)
    found = []
    for prediction in predictor.predict(list(tasks)):
        assert prediction.result is not None
        found += [item["value"]["text"] for item in prediction.result if item["type"] == "textarea"]
    return found


def test_the_lines_beside_suggestions_are_in_japanese(make_runtime: MakeRuntime):
    xml = choices_config("cat", "dog", extra=EVIDENCE)
    one = task(1, image=data_uri(1))
    [lines] = lines_of(make_runtime(threshold=0.0, language="ja"), xml, one)
    assert lines[0].startswith("候補: ") and lines[-1].endswith(": ゼロショット、未較正")
    [lines] = lines_of(make_runtime(threshold=1.0, language="ja"), xml, one)
    assert lines[0] == "候補: なし" and lines[1].startswith("チェックなし: ")
    everywhere = make_runtime(blind_share=0.5, language="ja")
    blind = lines_of(everywhere, xml, *(task(number, image=data_uri(1)) for number in range(12)))
    assert [localized(line, Language.JAPANESE) for line in BLIND_LINES] in blind


def test_a_language_other_than_english_has_versions_of_its_own(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
):
    config = parse_config(choices_config("cat", "dog", extra=EVIDENCE))

    def name(**values: Any) -> str:
        return make_runtime(**values).versions.get(config, KEY).name

    english, japanese = name(language="en"), name(language="ja")
    assert name() == english != japanese == name(language="ja")
    # What stands beside the suggestions is part of them.
    monkeypatch.setattr("backend.inference.versions.digest", lambda *_: "another wording")
    assert name(language="en") == english
    assert name(language="ja") not in {english, japanese}


# What is kept for people


def test_workers_keep_in_japanese_what_people_will_read(
    make_runtime: MakeRuntime,
    studio: StubStudio,
    connection: Redis,
    valkey: Any,
    monkeypatch: pytest.MonkeyPatch,
):
    studio.tasks = {1: {"image": data_uri(1)}, 2: {"image": BROKEN}}
    working = make_runtime(
        label_studio_url=studio.url,
        label_studio_api_key="f" * 40,
        redis_url=valkey.url,
        language="ja",
    )
    monkeypatch.setattr("jobs.predict_job.process_runtime", lambda: working)
    runs = RunStore(queue.connect(working.settings))
    run, _ = enqueue.start_run(runs, PROJECT, Scope.MISSING, Trigger.CONNECT)
    predict_job.plan(run.id)
    for shard in runs.shards(run.id):
        predict_job.embed(run.id, shard.number)
    predict_job.finish(run.id)
    [(number, why)] = runs.failures(run.id).items()
    assert (number, why["code"]) == (2, "truncated")
    assert why["message"] == "PNG ファイルが途中(8 バイト)で終わっています。"


def test_how_a_training_ended_is_kept_in_japanese(connection: Redis, valkey: Any, tmp_path: Path):
    settings = make_settings(tmp_path / "store", redis_url=valkey.url, language="ja")
    trainings = TrainingStore(queue.connect(settings))
    reason = Message("Nothing was approved since the last training.")
    trainings.end(PROJECT, Outcome.NOTHING_NEW, reason)
    assert trainings.get(PROJECT).reason == "前回の学習の後に承認されたものはありません。"
    error = ImageError(ImageReason.BAD_URL, Message("The task has no image address."))
    trainings.fail(PROJECT, error)
    assert trainings.get(PROJECT).reason == "タスクに画像のアドレスがありません。"
