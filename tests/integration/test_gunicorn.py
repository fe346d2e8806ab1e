"""`ls-clip serve`: who it lets in, and how fast it is there."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from gunicorn.workers.gthread import ThreadWorker

from backend.errors import SettingsError
from backend.server.app import create_app
from backend.server.connections import ClipWorker
from backend.server.gunicorn import check_bind, check_port
from tests.support.builders import contract, make_settings
from tests.support.fixtures import MakeRuntime
from tests.support.processes import free_port, run_cli, served
from tests.support.stub_encoder import StubEncoder
from tests.support.waiting import until

CREDENTIALS = {"basic_auth_user": "u", "basic_auth_pass": "p", "webhook_secret": "s"}
PUBLIC = ["0.0.0.0", "::", "192.168.1.5", "8.8.8.8", "clip.example.com", "", "127.0.0.1.nip.io"]


@pytest.mark.parametrize("host", PUBLIC)
def test_a_public_address_needs_credentials(tmp_path: Path, host: str):
    with pytest.raises(SettingsError) as caught:
        check_bind(make_settings(tmp_path, host=host))
    for name in ("BASIC_AUTH_USER", "BASIC_AUTH_PASS", "LS_CLIP_WEBHOOK_SECRET"):
        assert name in caught.value.fix
    check_bind(make_settings(tmp_path, host=host, **CREDENTIALS))


@pytest.mark.parametrize("missing", sorted(CREDENTIALS))
def test_half_of_the_credentials_are_not_enough(tmp_path: Path, missing: str):
    given = {name: value for name, value in CREDENTIALS.items() if name != missing}
    with pytest.raises(SettingsError):
        check_bind(make_settings(tmp_path, host="0.0.0.0", **given))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_this_machine_may_be_served_without_credentials_and_hears_so(
    tmp_path: Path, host: str, caplog: pytest.LogCaptureFixture
):
    check_bind(make_settings(tmp_path, host=host))
    assert "only this machine" in caplog.text


@pytest.mark.parametrize("missing", sorted(CREDENTIALS))
def test_a_missing_part_of_the_credentials_is_named(
    tmp_path: Path, missing: str, caplog: pytest.LogCaptureFixture
):
    check_bind(make_settings(tmp_path, **{**CREDENTIALS, missing: ""}))
    name = {"webhook_secret": "LS_CLIP_WEBHOOK_SECRET"}.get(missing, missing.upper())
    assert f"{name} is not set" in caplog.text


def test_a_refused_address_is_one_message(tmp_path: Path):
    done = run_cli("serve", "--host", "0.0.0.0", cwd=tmp_path, LS_CLIP_ENCODER="offline")
    assert done.returncode == 1
    assert done.stderr.count("Error:") == 1 and "BASIC_AUTH_USER" in done.stderr
    assert "Traceback" not in done.stderr


def test_health_and_setup_wait_for_no_model(make_runtime: MakeRuntime):
    """Label Studio waits 1 s for /health and 3 s for /setup, then calls a backend disconnected."""

    class NeverLoaded(StubEncoder):
        def load(self) -> None:
            pytest.fail("the model was loaded")

        def encode_prepared(self, images: Any) -> Any:
            pytest.fail("an image was encoded")

        def encode_texts(self, texts: Any) -> Any:
            pytest.fail("a text was encoded")

    client = create_app(make_runtime(NeverLoaded())).test_client()
    assert client.get("/health").json["status"] == "UP"
    answer = client.post("/setup", json=contract("setup")["body"])
    assert answer.json["model_version"].startswith("stub-z-")
    assert client.get("/health").status_code == 200


def test_health_and_setup_answer_while_the_model_loads(tmp_path: Path):
    with served(tmp_path) as (url, log):
        assert requests.get(f"{url}/health", timeout=60).json()["status"] == "UP"
        answer = requests.post(f"{url}/setup", json=contract("setup")["body"], timeout=60)
        assert answer.json()["model_version"].startswith("offline-z-")
    assert "only this machine" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_process_that_takes_long_to_load_tells_its_parent_that_it_is_alive(
    monkeypatch: pytest.MonkeyPatch,
):
    told = []
    monkeypatch.setattr(ThreadWorker, "load_wsgi", lambda self: until(lambda: len(told) > 1))
    monkeypatch.setattr(ThreadWorker, "notify", lambda self: told.append("alive"))
    worker = ClipWorker.__new__(ClipWorker)
    worker.load_wsgi()
    before = len(told)
    time.sleep(1.5)
    assert len(told) == before


def test_an_encoder_that_cannot_be_had_ends_the_server_with_one_error(tmp_path: Path):
    done = run_cli(
        *("serve", "--port", str(free_port()), "--encoder", "local-dir:/no/such/folder"),
        cwd=tmp_path,
        LS_CLIP_OFFLINE="true",
        LS_CLIP_STORE=str(tmp_path / "store"),
    )
    assert done.returncode == 1
    assert done.stderr.count("Fix:") == 1
    assert "Traceback" not in done.stderr


def test_a_store_that_cannot_be_opened_ends_the_server_with_one_error(tmp_path: Path):
    (tmp_path / "file").write_text("a file")
    done = run_cli(
        *("serve", "--port", str(free_port()), "--encoder", "offline"),
        cwd=tmp_path,
        LS_CLIP_STORE="file",
    )
    assert done.returncode == 1
    assert done.stderr.count("Fix:") == 1
    assert "LS_CLIP_STORE" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "host",
    ["no.such.host.invalid", "999.1.1.1", "a b", "[::1]", "::zz", "ü" * 70, "a..b", "a\x00b"],
)
def test_a_host_that_cannot_be_bound_is_told(tmp_path: Path, host: str):
    with pytest.raises(SettingsError) as caught:
        check_port(make_settings(tmp_path, host=host, port=0))
    assert "LS_CLIP_HOST" in caught.value.fix
    assert "None" not in caught.value.message


def test_a_host_that_cannot_be_bound_ends_the_server_with_one_error(tmp_path: Path):
    credentials = {"BASIC_AUTH_USER": "u", "BASIC_AUTH_PASS": "p", "LS_CLIP_WEBHOOK_SECRET": "s"}
    done = run_cli("serve", "--host", "no.such.host.invalid", cwd=tmp_path, **credentials)
    assert done.returncode == 1
    assert done.stderr.count("Error:") == 1 and "LS_CLIP_HOST" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_told(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = run_cli(
            *("serve", "--port", str(other.getsockname()[1]), "--encoder", "offline"),
            cwd=tmp_path,
            LS_CLIP_STORE=str(tmp_path / "store"),
        )
    assert done.returncode == 1
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr
