"""Several encoders measured on the same images: real models, random weights, small photos."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.encoders.base import Encoder
from backend.encoders.registry import new_encoder
from backend.evaluation import encoding_pass
from backend.evaluation.comparison import Comparison, compare
from backend.evaluation.evaluate import evaluate
from backend.images.decode import decode
from backend.inference.batch_encoding import encode_batch
from backend.inference.image_failures import NOT_FINITE
from backend.inference.preparer import Preparer
from backend.settings import Settings
from tests.support.builders import make_settings
from tests.support.commands import run_command
from tests.support.labelled_folder import make_labelled_folder
from tests.support.openclip import CONVNET, TOWERS, model_folder

LABELS = ["cat", "dog", "boat"]
PHOTOS = 40
SHARED = ("map", "map_all", "threshold", "labels_per_image", "clicks_per_image", "micro_f1")


def quiet(what: str, done: int, total: int) -> None:
    """Shows no progress."""


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return make_labelled_folder(
        tmp_path / "data", LABELS, lambda number: LABELS[: 1 + number % 2], PHOTOS, (600, 400)
    )


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = model_folder(tmp_path_factory.mktemp("models") / "tiny-vit", TOWERS, {})
    return f"local-dir:{folder}"


@pytest.fixture(scope="session")
def convnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = model_folder(tmp_path_factory.mktemp("models") / "tiny-convnext", CONVNET, {})
    return f"local-dir:{folder}"


@pytest.fixture
def given(tmp_path: Path) -> Settings:
    return make_settings(tmp_path / "store", precision="float32", batch_size=16)


def rows_of(comparison: Comparison) -> list[tuple[str, str]]:
    return [(row["encoder"], row["regions"]) for row in comparison.rows]


def test_without_regions_each_model_is_measured_with_all_that_it_has(
    given: Settings, labelled: Path, vit: str, convnet: str
):
    found = compare(given, labelled, [convnet, vit], [], quiet)
    assert rows_of(found) == [
        *((convnet, regions) for regions in ("none", "cells", "tiles")),
        *((vit, regions) for regions in ("none", "patches", "tiles")),
    ]
    assert len(found.measured) == 6
    assert len({row["embedding_id"] for row in found.rows}) == 6
    assert [row["bytes_per_image"] for row in found.rows] == 2 * [96, 96 + 432, 96 + 432]
    assert all(0 < row["seconds_encoding"] < row["seconds_with_decoding"] for row in found.rows)
    assert (found.images, found.labels, found.map_labels) == (PHOTOS, 3, 2)
    assert found.recommendation.best in {row["label"] for row in found.rows}


@pytest.mark.parametrize("regions", ["none", "patches", "tiles"])
def test_a_row_has_the_figures_of_evaluate(given: Settings, labelled: Path, vit: str, regions: str):
    (row,) = compare(given, labelled, [vit], [regions], quiet).rows
    own = given.model_copy(update={"encoder": vit, "regions": regions})
    alone = evaluate(own, labelled, False, quiet)
    assert row["embedding_id"] == alone["encoder"]
    assert {name: row[name] for name in SHARED} == {name: alone[name] for name in SHARED}
    assert row["clicks_from_nothing"] == alone["true_labels_per_image"] == 1.5


def test_what_auto_stands_for_is_measured_once(given: Settings, labelled: Path, convnet: str):
    found = compare(given, labelled, [convnet, convnet], ["auto", "none", "cells", "none"], quiet)
    assert rows_of(found) == [(convnet, "none"), (convnet, "cells")]


# What it costs


def test_an_image_is_decoded_once_for_all_that_need_the_same_pixels(
    given: Settings, labelled: Path, vit: str, monkeypatch: pytest.MonkeyPatch
):
    decoded: list[int] = []

    def count(data: bytes, *rest: Any) -> Any:
        decoded.append(len(data))
        return decode(data, *rest)

    monkeypatch.setattr("backend.images.decoder.decode", count)
    compare(given, labelled, [vit], ["patches", "none"], quiet)
    assert len(decoded) == PHOTOS
    compare(given, labelled, [vit], ["tiles", "none", "patches"], quiet)
    assert len(decoded) == 3 * PHOTOS


def test_only_one_batch_of_images_is_in_memory(
    given: Settings, labelled: Path, vit: str, monkeypatch: pytest.MonkeyPatch
):
    alive: set[int] = set()
    most: list[int] = []
    submit = Preparer.submit

    def submitted(preparer: Any, *arguments: Any) -> Any:
        job = submit(preparer, *arguments)
        alive.add(id(job))
        weakref.finalize(job, alive.discard, id(job))
        most.append(len(alive))
        return job

    monkeypatch.setattr(Preparer, "submit", submitted)
    compare(given, labelled, [vit], ["none"], quiet)
    assert len(most) == PHOTOS
    assert max(most) <= given.batch_size + 1


def test_the_weights_of_a_pass_are_freed_before_those_of_the_next_are_read(
    given: Settings, labelled: Path, vit: str, convnet: str, monkeypatch: pytest.MonkeyPatch
):
    towers: list[Any] = []
    alive_at_load: list[int] = []

    def watched(settings: Settings) -> Encoder:
        encoder: Any = new_encoder(settings)
        load = encoder.load

        def count_and_load() -> None:
            if not encoder._loaded:
                alive_at_load.append(sum(tower() is not None for tower in towers))
                load()
                towers.append(weakref.ref(encoder.tower))

        encoder.load = count_and_load
        return encoder

    monkeypatch.setattr(encoding_pass, "new_encoder", watched)
    compare(given, labelled, [vit, convnet], ["none", "tiles"], quiet)
    assert alive_at_load == [0, 0, 0, 0]
    assert [tower() for tower in towers] == [None] * 4


def test_nothing_is_written_where_the_users_store_would_be(
    given: Settings, labelled: Path, vit: str, tmp_path: Path
):
    compare(given, labelled, [vit], ["none"], quiet)
    assert not (tmp_path / "store").exists()


def test_a_table_that_was_fitted_decides_what_is_ticked_and_the_store_stays_as_it_was(
    given: Settings, labelled: Path, vit: str, tmp_path: Path
):
    (before,) = compare(given, labelled, [vit], ["none"], quiet).rows
    own = given.model_copy(update={"encoder": vit, "regions": "none"})
    fitted = evaluate(own, labelled, True, quiet)
    files = {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "store").rglob("*"))}
    (after,) = compare(given, labelled, [vit], ["none"], quiet).rows
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    assert (before["table"], after["table"]) == ("shipped", "fitted")
    assert {name: after[name] for name in SHARED} == {name: fitted[name] for name in SHARED}
    assert after["labels_per_image"] != before["labels_per_image"]


# What cannot be used


def test_images_that_cannot_be_used_are_left_out_of_all_rows(
    given: Settings, labelled: Path, vit: str, monkeypatch: pytest.MonkeyPatch
):
    (labelled / "images" / "03.jpg").write_text("no image")
    (labelled / "images" / "04.jpg").unlink()

    def lose_one(encoder: Encoder, images: Any) -> Any:
        rows, broken = encode_batch(encoder, images)
        if encoder.regions == "tiles" and len(rows) == 16:
            row = rows.pop()
            broken[row.key] = NOT_FINITE
        return rows, broken

    monkeypatch.setattr(encoding_pass, "encode_batch", lose_one)
    found = compare(given, labelled, [vit], ["none", "tiles"], quiet)
    # Of three batches of images the second is full.
    assert list(found.failed) == ["03.jpg", "04.jpg", "31.jpg"]
    assert found.images == PHOTOS - 3
    assert len(found.measured) == 2
    assert len({row["true_labels_per_image"] for row in found.rows}) == 1


def test_a_broken_model_takes_no_images_from_the_others(
    given: Settings, labelled: Path, vit: str, tmp_path: Path
):
    broken = model_folder(tmp_path / "broken", TOWERS, {})
    weights = load_file(broken / "open_clip_model.safetensors")
    weights["visual.proj"] = torch.full_like(weights["visual.proj"], torch.nan)
    save_file(weights, broken / "open_clip_model.safetensors")
    found = compare(given, labelled, [f"local-dir:{broken}", vit], ["none"], quiet)
    assert found.rows[0]["error"]["code"] == "not_finite"
    assert found.measured == found.rows[1:]
    assert (found.images, found.failed) == (PHOTOS, {})


def test_what_cannot_be_had_is_a_row_and_the_others_go_on(
    given: Settings, labelled: Path, vit: str, tmp_path: Path
):
    wide = model_folder(tmp_path / "wide", {**TOWERS, "embed_dim": 64}, {})
    config = json.loads((wide / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = 32
    (wide / "open_clip_config.json").write_text(json.dumps(config))
    del config["model_cfg"]["embed_dim"]
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "odd" / "open_clip_model.safetensors").write_bytes(b"")
    names = ["nothing", f"local-dir:{tmp_path}/gone", f"local-dir:{wide}", vit, "offline"]
    names.append(f"local-dir:{tmp_path}/odd")
    found = compare(given, labelled, names, ["patches", "cell"], quiet)
    told = {(row["encoder"], row["regions"]): row["error"]["message"] for row in found.rows[:4]}
    assert "is not an encoder" in told["nothing", "patches, cell"]
    assert "open_clip_config.json" in told[names[1], "patches, cell"]
    assert "cannot be loaded" in told[names[2], "patches"]
    assert "no regions 'cell'" in told[names[2], "cell"]
    assert rows_of(found)[4:] == [
        (vit, "patches"), (vit, "cell"), ("offline", "patches"), ("offline", "cell"),
        (names[5], "patches, cell"),
    ]  # fmt: skip
    assert found.measured == [found.rows[4]]
    assert "vision transformer" in found.rows[6]["error"]["message"]
    assert "embed_dim" in found.rows[8]["error"]["message"]


def test_a_device_without_the_memory_is_a_reason_and_not_the_end(
    given: Settings, labelled: Path, vit: str, convnet: str, monkeypatch: pytest.MonkeyPatch
):
    def tight(settings: Settings) -> Encoder:
        encoder: Any = new_encoder(settings)
        if settings.encoder == vit:
            encoder.load = lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA is full."))
        return encoder

    monkeypatch.setattr(encoding_pass, "new_encoder", tight)
    found = compare(given, labelled, [vit, convnet], ["none"], quiet)
    assert "too little memory" in found.rows[0]["error"]["message"]
    assert found.measured == found.rows[1:]


def test_labels_that_an_encoder_cannot_read_are_named(given: Settings, labelled: Path, vit: str):
    content = (labelled / "labels.json").read_text().replace("boat", "犬")
    (labelled / "labels.json").write_text(content)
    (row,) = compare(given, labelled, [vit], ["none"], quiet).rows
    assert row["unreadable_labels"] == ["犬"]


# The command

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(tmp_path: Path, labelled: Path) -> Cli:
    def run(*options: str) -> tuple[int, str, str]:
        store = {"LS_CLIP_STORE": str(tmp_path / "store"), "LS_CLIP_OFFLINE": "1"}
        done = run_command("compare-encoders", str(labelled), *options, cwd=tmp_path, **store)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


def test_the_command_prints_markdown_with_each_choice_and_a_recommendation(
    cli: Cli, labelled: Path, vit: str
):
    (labelled / "images" / "03.jpg").write_text("no image")
    code, out, err = cli("--encoders", f"{vit},offline,a|b", "--regions", "none")
    assert code == 0
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert len(table) == 5
    assert len({line.replace(r"\|", "").count("|") for line in table}) == 1
    assert r"a\|b" in table[4] and "is not an encoder" in table[4]
    assert "Fix: Name one of open_clip" in err
    assert "39 images, 3 labels (mAP over 2 of them); 1 image left out" in out
    assert "03.jpg left out: " in out
    assert "torch 2." in out and "from nothing 1.49" in out
    assert "Differences in points of mAP" in out
    assert "pass 1 of 2" in err and "a|b with none is left out" in err


def test_json_is_all_that_is_printed_with_json(cli: Cli, vit: str):
    code, out, _ = cli("--encoders", vit, "--regions", "none,patches", "--json")
    assert code == 0
    found = json.loads(out)
    assert [row["regions"] for row in found["rows"]] == ["none", "patches"]
    assert set(found["recommendation"]) == {"text", "best", "is_clear", "behind"}
    assert found["failed"] == {}


def test_where_nothing_can_be_measured_the_exit_code_says_so(cli: Cli):
    code, out, _ = cli("--encoders", "nothing,neither", "--json")
    assert code == 1
    found = json.loads(out)
    assert [row["error"]["code"] for row in found["rows"]] == ["encoder", "encoder"]
    assert found["images"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--encoders", " , "], "--encoders names none"),
        (["--encoders", "offline", "--regions", ","], "--regions names none"),
    ],
)
def test_a_list_with_nothing_in_it_is_refused(cli: Cli, options: list[str], said: str):
    code, out, err = cli(*options)
    assert (code, out) == (1, "")
    assert said in err and "Fix:" in err


def test_images_none_of_which_can_be_read_are_one_error(cli: Cli, labelled: Path, vit: str):
    for path in (labelled / "images").iterdir():
        path.write_text("no image")
    code, out, err = cli("--encoders", vit, "--regions", "none")
    assert (code, out) == (1, "")
    assert "No image of" in err
