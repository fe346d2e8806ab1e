"""The doctor's own rules: one cause is told once, and nothing makes it fall over."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.cli.main import other_settings
from backend.cli.report import print_findings
from backend.doctor import machine, store
from backend.doctor.checks import CHECKS, doctor
from backend.doctor.context import Answer, Context
from backend.doctor.finding import Check, Finding, Severity, examine, exit_code
from backend.errors import StudioError
from backend.messages.catalogue import Language
from backend.server.settings_comparison import differing, digests
from tests.support.builders import ROOT, make_settings
from tests.support.commands import run_command
from tests.support.processes import run_cli, served

Usage = namedtuple("Usage", "total used free")
PASSWORDS = {"basic_auth_user": "u", "basic_auth_pass": "p", "webhook_secret": "s"}


def check(name: str, look: Any, *needs: str, project: bool = False) -> Check:
    return Check(name, "fine", "why", look, needs, project)


def nothing(context: Context) -> Iterator[Finding]:
    yield from ()


def failing(context: Context) -> Iterator[Finding]:
    raise StudioError("It is down.", "Start it.")


def crashing(context: Context) -> Iterator[Finding]:
    yield Finding("c", Severity.NOTE, "first", "why", "fix")
    raise KeyError("no such key")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(make_settings(tmp_path / "store"), None)


# Running checks


def test_a_check_that_crashes_is_a_finding_and_the_others_still_run(context: Context):
    findings = examine(context, [check("a", crashing), check("b", nothing)])
    assert [(one.check, one.severity) for one in findings] == [("a", "error"), ("b", "ok")]
    assert "KeyError" in findings[0].what
    assert "Traceback" not in findings[0].what


def test_what_depends_on_a_failure_is_one_line(context: Context):
    checks = [
        check("a", failing),
        check("b", nothing, "a"),
        check("c", nothing, "b"),
        check("d", nothing),
    ]
    findings = examine(context, checks)
    assert [one.check for one in findings] == ["a", "d", "skipped"]
    assert "b, c" in findings[-1].what
    assert (findings[0].what, findings[0].fix) == ("It is down.", "Start it.")


def test_the_same_failure_met_twice_is_told_once(context: Context):
    findings = examine(context, [check("a", failing), check("b", failing)])
    assert [one.check for one in findings] == ["a", "skipped"]


def test_checks_of_a_project_need_one(context: Context):
    assert examine(context, [check("a", failing, project=True)]) == []


def test_every_need_is_a_check_that_runs_before():
    seen: set[str] = set()
    for one in CHECKS:
        assert set(one.needs) <= seen, one.id
        assert one.id not in seen
        seen.add(one.id)


@pytest.mark.parametrize(
    ("severities", "code"),
    [([], 0), (["ok", "note"], 0), (["note", "warning"], 1), (["error", "warning"], 2)],
)
def test_the_exit_code_follows_the_worst_finding(severities: list[Any], code: int):
    assert exit_code([Finding("x", severity, "what") for severity in severities]) == code


# This machine


def credentials(tmp_path: Path, **values: Any) -> list[Finding]:
    settings = make_settings(tmp_path / "store", **values)
    return [
        one
        for one in examine(Context(settings, None), machine.CHECKS)
        if one.check == "credentials"
    ]


@pytest.mark.parametrize(
    ("values", "severity", "said"),
    [
        (PASSWORDS, "ok", "login"),
        ({}, "note", "no login"),
        (PASSWORDS | {"basic_auth_pass": ""}, "error", "BASIC_AUTH_PASS"),
        (PASSWORDS | {"basic_auth_user": ""}, "error", "BASIC_AUTH_USER"),
        (PASSWORDS | {"webhook_secret": ""}, "warning", "LS_CLIP_WEBHOOK_SECRET"),
        ({"host": "0.0.0.0"}, "error", "0.0.0.0"),
    ],
)
def test_missing_credentials_are_weighed(
    tmp_path: Path, values: dict[str, Any], severity: str, said: str
):
    (found,) = credentials(tmp_path, port=1, **values)
    assert found.severity == severity
    assert said in found.what


@pytest.mark.parametrize(("free", "severity"), [(10**8, "error"), (10**9, "warning")])
def test_a_disk_that_fills_up_is_told(
    context: Context, monkeypatch: pytest.MonkeyPatch, free: int, severity: str
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, free))
    (found,) = store.store(context)
    assert found.severity == severity
    assert f"{free // 10**6} MB" in found.what


def test_a_store_that_cannot_be_written_is_told(context: Context, monkeypatch: pytest.MonkeyPatch):
    def refuse(dir: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    (found,) = examine(context, [one for one in store.CHECKS if one.id == "store"])
    assert found.severity == "error"
    assert "cannot be written: Permission denied" in found.what


@pytest.mark.parametrize(
    ("status", "body", "seconds", "said"),
    [
        (200, {"model_version": "v"}, 9.0, "took 9.0 s"),
        (200, {"model_version": None}, 0.1, "answers 200"),
        (503, {"error": {"message": "No weights.", "fix": "Get some."}}, 0.1, "No weights."),
        (200, None, 0.1, "answers 200"),
    ],
)
def test_a_setup_that_label_studio_cannot_use_is_told(
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: Any,
    seconds: float,
    said: str,
):
    answer = Answer(status, body, "", "", seconds)
    monkeypatch.setattr(Context, "setup", lambda self, of_project: answer)
    (found,) = machine.backend_login(context)
    assert said in found.what
    assert found.fix


def test_a_slow_health_answer_is_told(context: Context, monkeypatch: pytest.MonkeyPatch):
    answer = Answer(200, {"model_class": "ClipBackend"}, "", "", 4.0)
    monkeypatch.setattr(Context, "ask", lambda *_: answer)
    (found,) = machine.backend(context)
    assert (found.check, found.severity) == ("backend", "warning")


# The command


def json_findings(tmp_path: Path, *arguments: str, **environment: str) -> Any:
    """The finished command, without a Label Studio."""
    return run_command(
        *("doctor", *arguments, "--json"),
        cwd=tmp_path,
        LS_CLIP_ENCODER="offline",
        LS_CLIP_STORE=str(tmp_path / "store"),
        LABEL_STUDIO_URL="http://127.0.0.1:9",
        **environment,
    )


def test_json_is_all_that_is_printed_and_the_exit_code_says_error(tmp_path: Path):
    with served(tmp_path) as (url, _):
        done = json_findings(tmp_path, "1", LS_CLIP_PUBLIC_URL=url, LABEL_STUDIO_API_KEY="x")
    assert done.returncode == 2
    findings = {one["check"]: one for one in json.loads(done.stdout)}
    assert set(findings["studio"]) == {"check", "severity", "what", "why", "fix"}
    assert findings["studio"]["severity"] == "error"
    assert findings["backend"]["severity"] == "ok"
    assert findings["backend-login"]["severity"] == "ok"
    assert "LS_CLIP_LABEL_STUDIO_API_KEY" in findings["backend-settings"]["what"]
    assert "predictions-missing" in findings["skipped"]["what"]
    assert done.stderr == ""


def test_people_get_a_line_a_finding(tmp_path: Path):
    done = run_cli(
        "doctor",
        cwd=tmp_path,
        LS_CLIP_ENCODER="offline",
        LS_CLIP_PORT="1",
        LS_CLIP_STORE=str(tmp_path / "store"),
        LABEL_STUDIO_URL="http://127.0.0.1:9",
    )
    assert done.returncode == 2
    assert "error studio" in done.stdout
    assert "Fix:" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_no_character_is_lost_beside_wide_ones(capsys: Any, monkeypatch: pytest.MonkeyPatch):
    wide = "cannot read 猫の写真を撮る人たち, 自転車に乗っている人, 海の見える丘の上の白い家, 犬."
    for columns in range(40, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        print_findings([Finding("labels", Severity.WARNING, wide)], Language.ENGLISH)
        shown = "".join(capsys.readouterr().out.split())
        assert shown == "warninglabels" + wide.replace(" ", "")


def test_a_server_that_was_started_with_other_settings_is_told(tmp_path: Path):
    with served(tmp_path, LABEL_STUDIO_API_KEY="old") as (url, _):
        done = json_findings(
            tmp_path,
            LS_CLIP_PUBLIC_URL=url,
            LABEL_STUDIO_API_KEY="new-and-secret",
            LS_CLIP_REDIS_URL="redis://127.0.0.1:9/0",
        )
    found = {one["check"]: one for one in json.loads(done.stdout)}["backend-settings"]
    assert found["severity"] == "warning"
    assert "LS_CLIP_LABEL_STUDIO_API_KEY, LS_CLIP_REDIS_URL." in found["what"]
    assert "Restart ls-clip serve" in found["fix"]
    assert "new-and-secret" not in done.stdout


def test_connect_tells_of_it_too(tmp_path: Path):
    with served(tmp_path, LS_CLIP_STORE=str(tmp_path / "store")) as (url, _):
        same = make_settings(tmp_path / "store", encoder="offline", public_url=url)
        (told,) = other_settings(same.model_copy(update={"threshold": 0.7}))
    assert "LS_CLIP_THRESHOLD" in told and "then run ls-clip connect again" in told
    # Its own errors are told by other steps.
    assert other_settings(same) == []


@pytest.mark.parametrize("salt", ["", "\ud800", "x" * 100_000])
def test_settings_can_be_compared_under_any_salt(tmp_path: Path, salt: str):
    mine, other = (make_settings(tmp_path / name) for name in ("a", "b"))
    assert differing(mine, salt, digests(mine, salt)) == []
    assert differing(mine, salt, digests(other, salt)) == ["LS_CLIP_STORE"]
    assert differing(mine, salt, {"store": 7, "no such": "x"}) == ["LS_CLIP_STORE"]


def test_a_server_that_cannot_compare_settings_is_told(
    context: Context, monkeypatch: pytest.MonkeyPatch
):
    for answer in (Answer(404, None, "", "", 0.1), Answer(200, [], "", "", 0.1)):
        monkeypatch.setattr(Context, "compare", lambda self, answer=answer: answer)
        (found,) = machine.backend_settings(context)
        assert found.severity == "warning"
        assert "older release" in found.why


def test_a_setting_that_cannot_work_is_a_finding(tmp_path: Path):
    done = run_command("doctor", "--json", cwd=tmp_path, LABEL_STUDIO_URL="localhost:8080")
    assert done.returncode == 2
    (found,) = json.loads(done.stdout)
    assert (found["check"], found["severity"]) == ("settings", "error")
    assert "LS_CLIP_LABEL_STUDIO_URL" in found["what"]


def test_a_redirect_and_another_program_are_told_from_label_studio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = make_settings(tmp_path / "store", label_studio_url="http://a.example")
    for answer, said in [
        (Answer(301, None, "", "https://a.example/", 0.1), "redirects to https://a.example/"),
        (Answer(503, None, "", "", 0.1), "answers 503"),
        (Answer(200, {"x": 1}, "", "", 0.1), "is not Label Studio's API"),
    ]:
        monkeypatch.setattr(Context, "ask", lambda *_, answer=answer: answer)
        found = next(one for one in doctor(settings) if one.check == "studio")
        assert said in found.what
        assert "LABEL_STUDIO_URL" in found.fix or "Wait" in found.fix


# The documentation


@pytest.mark.parametrize("name", [*(one.id for one in CHECKS), "settings", "skipped"])
def test_every_check_is_in_the_troubleshooting_page(name: str):
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert f"| `{name}` |" in page
