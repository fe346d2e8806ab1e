"""Settings: where they come from, what they refuse, and that all of them are documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backend.errors import SettingsError
from backend.settings import Settings, load_settings
from tests.support.builders import ROOT

DOCUMENT = ROOT / "docs" / "settings.md"


def documented() -> dict[str, tuple[str, str]]:
    """Variable -> (default, meaning), from the table."""
    rows = re.findall(r"^\| `(LS_CLIP_\w+)` \| (.*?) \| (.*) \|$", DOCUMENT.read_text(), re.M)
    return {name: (default, meaning) for name, default, meaning in rows}


def test_every_setting_is_documented_with_its_own_description():
    names = Settings.environment_names()
    expected = {names[field]: info.description for field, info in Settings.model_fields.items()}
    assert {name: meaning for name, (_, meaning) in documented().items()} == expected


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_the_documented_default_is_the_default(field: str):
    default = Settings.model_fields[field].default
    if hasattr(default, "get_secret_value"):
        default = default.get_secret_value()
    shown = "" if default in (None, "") else f"`{str(default).lower()}`"
    found = documented()[Settings.environment_names()[field]][0].lower()
    assert found == shown


def test_the_short_names_are_documented():
    text = DOCUMENT.read_text()
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "BASIC_AUTH_USER", "BASIC_AUTH_PASS"):
        assert f"`{name}`" in text


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LS_CLIP_PORT", "9191")
    monkeypatch.setenv("LABEL_STUDIO_URL", "https://studio.example.com/")
    monkeypatch.setenv("BASIC_AUTH_USER", "u")
    found = load_settings()
    assert found.port == 9191
    assert found.label_studio_url == "https://studio.example.com"
    assert found.basic_auth_user == "u"


def test_the_long_name_wins_over_the_short_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://short")
    monkeypatch.setenv("LS_CLIP_LABEL_STUDIO_URL", "http://long")
    assert load_settings().label_studio_url == "http://long"


def test_a_dotenv_file_is_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / ".env").write_text("LS_CLIP_PORT=9200\nLS_CLIP_THREADS=16\nOTHER=1\n")
    monkeypatch.setenv("LS_CLIP_THREADS", "32")
    found = load_settings()
    assert (found.port, found.threads) == (9200, 32)


def test_options_of_a_command_win_and_absent_ones_do_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LS_CLIP_PORT", "9191")
    monkeypatch.setenv("LS_CLIP_HOST", "127.0.0.2")
    found = load_settings(port=9300, host=None)
    assert (found.port, found.host) == (9300, "127.0.0.2")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LS_CLIP_PORT", "http"),
        ("LS_CLIP_PORT", "70000"),
        ("LS_CLIP_THRESHOLD", "1.5"),
        ("LS_CLIP_THRESHOLD", "nan"),
        ("LS_CLIP_THREADS", "2"),
        ("LS_CLIP_PREDICT_SECONDS", "0"),
        ("LS_CLIP_LABEL_STUDIO_URL", "studio.example.com"),
        ("LS_CLIP_PUBLIC_URL", "ftp://x"),
        ("LS_CLIP_LOG_LEVEL", "LOUD"),
        ("LS_CLIP_PRECISION", "float8"),
        ("LS_CLIP_DEVICE", "gpu"),
        ("LS_CLIP_DEVICE", "cuda:x"),
        ("LS_CLIP_REGIONS", "many"),
        ("LS_CLIP_GOAL", "accuracy"),
        ("LS_CLIP_STORE", "~no-such-user/store"),
        ("LS_CLIP_LABEL_STUDIO_URL", ""),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load_settings()


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("log_level", ["DEBUG", "INFO", "WARNING", "ERROR"]),
        ("precision", ["auto", "float32", "bfloat16"]),
        ("regions", ["auto", "none", "cells", "tiles"]),
        ("goal", ["precision", "recall", "f1"]),
    ],
)
def test_a_refused_choice_names_the_variable_and_the_allowed_values(name: str, allowed: list[str]):
    with pytest.raises(SettingsError, match=f"LS_CLIP_{name.upper()}") as caught:
        load_settings(**{name: "other"})
    assert all(f"'{value}'" in caught.value.message for value in allowed)


def test_the_log_level_is_case_insensitive():
    assert load_settings(log_level="debug").log_level == "DEBUG"


@pytest.mark.parametrize(
    "address",
    ["http://admin:S3CRET@studio:8080", "http://admin:S3CRET/x@studio", "http://admin:S3CRET"],
)
def test_an_address_with_a_password_is_refused_and_not_shown(address: str):
    with pytest.raises(SettingsError, match="LS_CLIP_LABEL_STUDIO_URL") as caught:
        load_settings(label_studio_url=address)
    assert "S3CRET" not in str(caught.value)


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch):
    for name in ("LABEL_STUDIO_API_KEY", "BASIC_AUTH_PASS", "LS_CLIP_WEBHOOK_SECRET"):
        monkeypatch.setenv(name, "s3cret-value")
    found = load_settings()
    assert "s3cret-value" not in f"{found!r} {found} {found.model_dump()} {found.model_dump_json()}"
    assert found.webhook_secret.get_secret_value() == "s3cret-value"


def test_the_store_is_an_absolute_path_or_the_uri_as_given(tmp_path: Path):
    assert load_settings(store="here").store_uri == str(tmp_path.resolve() / "here")
    assert load_settings(store="~/x").store_uri == str(Path.home().resolve() / "x")
    assert load_settings(store="s3://bucket/x").store_uri == "s3://bucket/x"


def test_the_backends_own_url_follows_the_port_unless_it_is_given():
    assert load_settings(port=9300).backend_url == "http://127.0.0.1:9300"
    assert load_settings(public_url="https://clip.example.com/").backend_url == (
        "https://clip.example.com"
    )


def test_allowed_hosts_are_split_and_cleaned():
    assert load_settings(allowed_hosts=" MinIO.internal, ,10.1.0.0/16 ").allowed_host_list == [
        "minio.internal",
        "10.1.0.0/16",
    ]
