"""The command line: what it prints, and how it fails."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.cli import main
from backend.cli.images import MEASURES
from backend.encoders.offline import OfflineEncoder
from backend.training.clicks_text import clicks_text
from backend.vlpl.clicks import Clicks
from tests.support.builders import photo
from tests.support.commands import run_command
from tests.support.processes import child_environment, run_cli

COMMANDS = ["serve", "connect", "suggest", "evaluate", "compare-encoders", "demo", "doctor"]


def test_help_imports_no_model_code_and_names_every_command():
    code = (
        "import sys\n"
        "from backend.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'open_clip', 'lancedb', 'transformers', 'label_studio_sdk'}\n"
        "    print('HEAVY', sorted(heavy & set(sys.modules)))\n"
        "    sys.exit(end.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        env=child_environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert all(command in done.stdout for command in COMMANDS)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["ls-clip", *arguments])
    try:
        main.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def offline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offline_encoder: OfflineEncoder
) -> Iterator[None]:
    """The offline encoder, already loaded, and a store of the test's own."""
    monkeypatch.setenv("LS_CLIP_ENCODER", "offline")
    monkeypatch.setenv("LS_CLIP_STORE", str(tmp_path / "store"))
    for module in ("backend.inference.suggest", "backend.evaluation.evaluate"):
        monkeypatch.setattr(f"{module}.get_encoder", lambda *_: offline_encoder)
    yield


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    names = [str(tmp_path / f"{number}.png") for number in range(3)]
    for number, name in enumerate(names):
        photo(number).save(name)
    return names


# suggest


def test_suggest_prints_json_and_nothing_else(
    offline: None, photos: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    given = ("suggest", "--labels", "dog, cat,bicycle,", "--json", *photos)
    assert call(monkeypatch, *given) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["file"] for one in found] == photos
    for one in found:
        assert set(one) == {"file", "suggested", "scores"}
        assert list(one["scores"]) == ["dog", "cat", "bicycle"]
        assert all(0 <= score <= 1 for score in one["scores"].values())
        assert set(one["suggested"]) <= set(one["scores"])


def test_the_threshold_decides_what_is_suggested(
    offline: None, photos: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    for threshold, expected in (("0", 2), ("1", 0)):
        call(monkeypatch, "suggest", "--labels", "a,b", "--threshold", threshold, "--json", *photos)
        found = json.loads(capsys.readouterr().out)
        assert {len(one["suggested"]) for one in found} == {expected}


def test_one_bad_file_is_named_and_the_others_are_answered(
    offline: None, photos: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
):
    (tmp_path / "bad.jpg").write_text("no image")
    files = [photos[0], str(tmp_path / "bad.jpg"), str(tmp_path / "gone.jpg"), photos[1]]
    assert call(monkeypatch, "suggest", "--labels", "a,b", "--json", *files) == 1
    found = json.loads(capsys.readouterr().out)
    assert ["error" in one for one in found] == [False, True, True, False]
    assert set(found[1]["error"]) == {"code", "message", "fix"}
    assert call(monkeypatch, "suggest", "--labels", "a,b", *files) == 1
    said = capsys.readouterr().out
    assert f"Error: {files[1]}: This is not an image" in said
    assert f"Error: {files[2]} is not a file." in said
    assert said.count("Fix: ") == 2


def test_suggest_prints_a_table_for_people(
    offline: None, photos: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    assert call(monkeypatch, "suggest", "--labels", "dog,cat", *photos) == 0
    assert "2.png" in capsys.readouterr().out


def test_labels_that_the_model_cannot_read_are_warned_about(
    offline: None, photos: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Any
):
    assert call(monkeypatch, "suggest", "--labels", "犬,dog", "--json", photos[0]) == 0
    captured = capfd.readouterr()
    assert "犬" in captured.err and "xlm-roberta" in captured.err
    json.loads(captured.out)


def test_a_folder_in_place_of_files_is_told_how_to_name_its_files(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
):
    assert call(monkeypatch, "suggest", "--labels", "dog", str(tmp_path)) == 1
    assert f"{tmp_path}/*" in capfd.readouterr().out


def test_suggest_says_what_it_is_doing(
    offline: None, photos: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Any
):
    assert call(monkeypatch, "suggest", "--labels", "dog,cat", *photos) == 0
    told = capfd.readouterr().err
    assert "loading the encoder" in told and "suggesting" in told


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
