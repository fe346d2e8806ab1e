"""The command line: what it prints, and how it fails."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from backend.cli.evaluation import MEASURES
from backend.training.clicks_text import clicks_text
from backend.vlpl.clicks import Clicks
from tests.support.builders import photo
from tests.support.commands import call, run_command
from tests.support.processes import run_cli

# evaluate


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A folder of images whose labels have nothing to do with them."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    truth = {}
    for number in range(30):
        photo(number).save(folder / "images" / f"{number}.png")
        truth[f"{number}.png"] = ["dog"] if number % 2 else ["dog", "cat"]
    content = {"classes": ["dog", "cat", "boat"], "images": truth}
    (folder / "labels.json").write_text(json.dumps(content))
    return folder


def test_evaluate_prints_its_figures_as_json(
    offline: None, labelled: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    assert call(monkeypatch, "evaluate", str(labelled), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    rates = {f"{k}_{m}" for k in ("micro", "macro") for m in ("precision", "recall", "f1")}
    assert rates | {"map", "map_all", "labels_per_image", "encoder"} <= set(found)
    assert (found["images"], found["labels"], found["failed"]) == (30, 3, {})
    assert 0 <= found["map"] <= 100
    assert found["true_labels_per_image"] == pytest.approx(1.5)
    assert found["clicks_from_nothing"] == pytest.approx(1.5)
    # What is ticked and not wrong saves a click, and what is wrong costs one.
    hits = found["micro_precision"] / 100 * found["labels_per_image"]
    clicks = 1.5 + found["labels_per_image"] - 2 * hits
    assert found["clicks_per_image"] == pytest.approx(clicks)
    low, high = found["clicks_interval"]
    assert low < clicks < high
    assert found["clicks"]["saved"] == pytest.approx(1.5 - clicks)


def test_evaluate_prints_every_figure_in_words_and_the_encoder_in_one_line(
    offline: None, labelled: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    assert call(monkeypatch, "evaluate", str(labelled), "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert {name for name, value in figures.items() if isinstance(value, float)} <= set(MEASURES)
    assert call(monkeypatch, "evaluate", str(labelled)) == 0
    printed = capsys.readouterr().out
    assert all(words in printed for words, _ in MEASURES.values())
    assert f"encoder: {figures['encoder']}\n" in printed
    low, high = figures["clicks_interval"]
    assert f"{figures['clicks_per_image']:.2f} ({low:.2f} to {high:.2f})" in printed
    assert clicks_text(Clicks.from_dict(figures["clicks"])) in printed
    assert printed.count("nothing ticked") == 2  # Both precisions, of noise.
    monkeypatch.setenv("LS_CLIP_THRESHOLD", "0")
    assert call(monkeypatch, "evaluate", str(labelled)) == 0
    assert "nothing ticked" not in capsys.readouterr().out


def test_evaluate_names_files_that_cannot_be_read(
    offline: None, labelled: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    (labelled / "images" / "3.png").write_text("no image")
    (labelled / "images" / "4.png").unlink()
    assert call(monkeypatch, "evaluate", str(labelled), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["failed"]) == {"3.png", "4.png"}
    assert found["images"] == 28


def test_a_fitted_table_is_used_from_then_on(
    offline: None, labelled: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    call(monkeypatch, "evaluate", str(labelled), "--fit", "--json")
    fitted = json.loads(capsys.readouterr().out)
    call(monkeypatch, "evaluate", str(labelled), "--json")
    assert json.loads(capsys.readouterr().out) == fitted


# Errors


@pytest.mark.parametrize("content", [None, "{", "[]", '{"classes": ["a"], "images": {"x": ["b"]}}'])
def test_a_folder_of_another_form_is_one_message(
    offline: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
    tmp_path: Path,
    content: str | None,
):
    if content is not None:
        (tmp_path / "labels.json").write_text(content)
    assert call(monkeypatch, "evaluate", str(tmp_path), "--json") == 1
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "labels.json" in captured.err and "Fix:" in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("variables", "arguments", "word"),
    [
        ({"LS_CLIP_PORT": "http"}, ["suggest", "--labels", "a", __file__], "LS_CLIP_PORT"),
        ({"LS_CLIP_ENCODER": "clip"}, ["suggest", "--labels", "a", __file__], "is not an encoder"),
        ({"LS_CLIP_ENCODER": "offline"}, ["suggest", "--labels", ", ,", __file__], "No labels"),
        ({}, ["connect", "1"], "token"),
    ],
)
def test_an_error_is_one_message_and_exit_code_1(
    tmp_path: Path, variables: dict[str, str], arguments: list[str], word: str
):
    done = run_command(*arguments, cwd=tmp_path, **variables)
    assert done.returncode == 1
    assert done.stdout == ""
    assert word in done.stderr
    assert done.stderr.count("Error:") == 1 and "Fix:" in done.stderr
    assert "Traceback" not in done.stderr


def test_weights_that_cannot_be_had_are_refused_before_the_hubs_own_retries_end(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = run_cli(
            *("suggest", "--labels", "a", __file__),
            cwd=tmp_path,
            LS_CLIP_ENCODER="open_clip:ViT-B-16/datacomp_xl_s13b_b90k",
            HF_ENDPOINT=hub,
            HF_HOME=str(tmp_path / "hub"),
            HOME=str(tmp_path),
        )
    assert done.returncode == 1
    assert "ViT-B-16/datacomp_xl_s13b_b90k" in done.stderr
    for fix in ("open_clip:MODEL/PATH", "HF_HOME", "LS_CLIP_ENCODER=offline"):
        assert fix in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
