"""Each format, read back by the library that people read it with."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools.coco import COCO

from backend.images.address import compact_address
from backend.projects.export.export import Format, RowsPer
from backend.projects.export.formats.columns import PER_IMAGE, PER_LABEL
from backend.projects.export.splits import Shares
from backend.projects.label_states import State
from backend.settings import Settings
from tests.integration.exports.conftest import LOST
from tests.support.builders import ROOT
from tests.support.exporting import ALL, run_export
from tests.support.stub_label_studio import StubStudio

LABELS = ["cat", 'dog, "wild"', "犬"]
SPLIT = {"shares": Shares(0.5, 0.25, 0.25), "near": 0.999}


def test_csv_holds_a_row_per_label_that_says_what_is_present_and_absent(
    settings: Settings, tmp_path: Path
):
    path = tmp_path / "out.csv"
    run_export(settings, Format.CSV, path, states=ALL)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == PER_LABEL.names
    assert [row["label"] for row in rows] == LABELS * 6
    first = {row["label"]: (row["presence"], row["present"], row["state"]) for row in rows[:3]}
    assert first["cat"] == ("present", "True", "approved")
    assert first["犬"] == ("absent", "False", "approved")
    assert {row["presence"] for row in rows if row["state"] == "unknown"} <= {"unknown"}
    names = {int(row["task"]): row["name"] for row in rows}
    assert names[4] == "a, b\nc.png" and names[LOST] == "gone.jpg" and names[2] == "CAT/1.JPG"
    frame = pd.read_csv(path)
    assert frame[frame.presence == "present"].groupby("task").label.count()[2] == 2
    assert pl.read_csv(path).height == 18


def test_csv_holds_a_row_per_image_with_one_zero_or_nothing_for_each_label(
    settings: Settings, tmp_path: Path
):
    path = tmp_path / "out.csv"
    run_export(settings, Format.CSV, path, rows=RowsPer.IMAGE, states=(State.APPROVED,))
    frame = pd.read_csv(path, index_col="task")
    assert list(frame.columns) == [*PER_IMAGE.names[1:], *LABELS]
    assert frame.loc[[1, 2, LOST], LABELS].to_numpy().tolist() == [
        [1, 0, 0],
        [0, 1, 1],
        [0, 0, 0],
    ]
    run_export(settings, Format.CSV, path, rows=RowsPer.IMAGE)
    frame = pd.read_csv(path, index_col="task")
    assert frame.loc[3, LABELS].isna().all() and not frame.loc[3, "reviewed"]


@pytest.mark.parametrize("rows", RowsPer)
def test_parquet_has_types_and_says_what_its_columns_mean(
    settings: Settings, tmp_path: Path, rows: RowsPer
):
    path = tmp_path / "out.parquet"
    run_export(settings, Format.PARQUET, path, rows=rows, states=ALL, sizes=True, **SPLIT)
    table = pq.read_table(path)
    schema = PER_LABEL if rows == RowsPer.LABEL else PER_IMAGE
    assert [field.type for field in table.schema][: len(schema)] == schema.types
    assert all(field.metadata[b"description"] for field in table.schema)
    about = json.loads(table.schema.metadata[b"label-studio-clip"])
    assert about["project"] == 1 and about["states"] == list(ALL) and about["schema"] == 2
    frame = pl.read_parquet(path)
    assert set(frame["split"]) <= {"train", "validation", "test"}
    of_first = frame.filter(pl.col("task") == 1)
    assert set(of_first["width"]) == {40} and set(of_first["height"]) == {30}
    assert frame.filter(pl.col("task") == LOST)["width"].to_list() == [None] * (
        3 if rows == RowsPer.LABEL else 1
    )
    if rows == RowsPer.IMAGE:
        assert of_first.select(LABELS).row(0) == (True, False, False)
        assert pd.read_parquet(path).set_index("task")["cat"].to_dict()[1] is True


# pycocotools 2.0 speaks to numpy as before its version 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_loads_in_pycocotools(settings: Settings, tmp_path: Path):
    path = tmp_path / "coco.json"
    written = run_export(settings, Format.COCO, path, sizes=True, **SPLIT)
    assert written.missing.count == 1
    coco = COCO(str(path))
    coco.info()
    assert coco.getCatIds(catNms=["犬"]) == [3] and coco.getCatIds(supNms=["tags"]) == [1, 2, 3]
    assert set(coco.getImgIds()) == {1, 2, 3, 4, 5, LOST}
    assert set(coco.getImgIds(catIds=coco.getCatIds(catNms=["cat"]))) == {1}
    (found,) = coco.loadAnns(coco.getAnnIds(imgIds=[1], areaRng=[1, 1e9], iscrowd=False))
    assert (found["bbox"], found["area"], found["image_id"]) == ([0, 0, 40, 30], 1200, 1)
    assert coco.annToMask(found).sum() == 1200
    assert found["attributes"]["presence"] == "present"
    (image,) = coco.loadImgs([1])
    assert (image["file_name"], image["width"], image["height"]) == ("cat/1.jpg", 40, 30)
    names = {one["id"]: one["name"] for one in coco.loadCats(coco.getCatIds())}
    assert [names[one] for one in image["absent_category_ids"]] == ['dog, "wild"', "犬"]
    (unseen,) = coco.loadImgs([3])
    assert unseen["unknown_category_ids"] == [1, 2, 3] and not unseen["absent_category_ids"]
    (lost,) = coco.loadImgs([LOST])
    assert (lost["width"], lost["height"], lost["reviewed"]) == (0, 0, True)
    again = coco.loadRes([{**one, "score": 0.5} for one in coco.dataset["annotations"]])
    assert len(again.getAnnIds()) == len(coco.getAnnIds()) == 3


def test_imagefolder_loads_in_datasets(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "folder"
    written = run_export(settings, Format.IMAGEFOLDER, path, **SPLIT)
    assert written.missing.count == 1
    data = _load_imagefolder(path, tmp_path, monkeypatch)
    assert sum(len(of_split) for of_split in data.values()) == 5
    assert set(data) == {entry.name for entry in path.iterdir()}
    rows = {row["task"]: row for of_split in data.values() for row in of_split}
    assert rows[1]["image"].size == (40, 30) == (rows[1]["width"], rows[1]["height"])
    assert rows[1]["present"] == ["cat"] and rows[1]["absent"] == ['dog, "wild"', "犬"]
    assert rows[3]["unknown"] == LABELS and rows[3]["present"] == []
    assert rows[4]["name"] == "a, b\nc.png"


def _load_imagefolder(path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from datasets import config, disable_progress_bars, load_dataset

    monkeypatch.setattr(config, "HF_DATASETS_OFFLINE", True)
    disable_progress_bars()
    return load_dataset("imagefolder", data_dir=str(path), cache_dir=str(scratch / "cache"))


def test_what_is_set_aside_is_named_so_and_is_in_no_folder(
    settings: Settings, studio: StubStudio, tmp_path: Path
):
    shares = Shares(1.0, 0.0, 0.0)
    pinned = {1: "train", 2: "test"}
    with (tmp_path / "splits.csv").open("w", newline="") as file:
        rows = [
            (compact_address(studio.tasks[n]["image"]), "", split) for n, split in pinned.items()
        ]
        csv.writer(file).writerows([("image", "key", "split"), *rows])
    # All that is embedded counts as near.
    given: dict[str, Any] = {"shares": shares, "near": -1.0}
    written = run_export(settings, Format.IMAGEFOLDER, tmp_path / "folder", **given)
    assert written.tally.splits == {"train": 1, "test": 1}
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {"train", "test"}
    run_export(settings, Format.CSV, tmp_path / "out.csv", rows=RowsPer.IMAGE, **given)
    frame = pd.read_csv(tmp_path / "out.csv", index_col="task")
    rest = {3: "aside", 4: "aside", 5: "aside", LOST: "train"}
    assert frame["split"].to_dict() == {**pinned, **rest}


def test_label_studio_tasks_keep_their_data_and_name_their_images(
    settings: Settings, tmp_path: Path
):
    path = tmp_path / "tasks.json"
    run_export(settings, Format.LABELSTUDIO, path, states=ALL, **SPLIT)
    items = json.loads(path.read_text(encoding="utf-8"))
    assert items[0]["data"]["clip_source"] == "cat/1.jpg"
    assert items[0]["meta"]["images"][0]["name"] == "cat/1.jpg"
    assert items[0]["meta"]["images"][0]["split"] in {"train", "validation", "test"}
    assert items[0]["annotations"][0]["result"][0]["value"] == {"choices": ["cat"]}
    assert items[1]["annotations"][0]["result"][0]["value"] == {"choices": LABELS[1:]}


def test_copies_lie_beside_the_file_under_their_names(settings: Settings, tmp_path: Path):
    path = tmp_path / "out.csv"
    written = run_export(settings, Format.CSV, path, rows=RowsPer.IMAGE, images=True)
    assert written.missing.count == 1 and "404" in written.missing.reasons[LOST]
    frame = pd.read_csv(path, index_col="task")
    assert list(frame.index) == [1, 2, 3, 4, 5]
    assert frame.loc[[1, 2, 4, 5], "file_name"].tolist() == [
        "out-images/cat/1.jpg",
        "out-images/CAT/1-2.JPG",
        "out-images/a, b_c.png",
        "out-images/etc/passwd.png",
    ]
    assert len(Path(frame.loc[3, "file_name"]).name.encode()) <= 120
    for file in frame["file_name"]:
        with Image.open(tmp_path / file) as image:
            assert image.size == (40, 30)
    files = [one for one in (tmp_path / "out-images").rglob("*") if one.is_file()]
    assert len({str(one).casefold() for one in files}) == len(files) == 5


def test_the_documentation_names_every_column():
    text = (ROOT / "docs" / "exports.md").read_text()
    for name in {*PER_LABEL.names, *PER_IMAGE.names}:
        assert f"`{name}`" in text, name
