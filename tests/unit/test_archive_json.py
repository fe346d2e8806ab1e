"""JSON archives: Label Studio's exports, lists of objects, and COCO files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend.errors import SettingsError
from backend.projects.archives.rows import Reason
from tests.support.archives import choices_result, labels_in, read, reasons_in, write
from tests.support.builders import choices_config

EMAIL = "a@example.com"


def task(number: int, *annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    image = {"image": f"/data/local-files/?d=images/{number}.jpg"}
    return {"id": number, "data": data or image, "annotations": list(annotations)}


def annotation(*labels: Any, name: str = "tags", **fields: Any) -> dict[str, Any]:
    result = [choices_result(name, labels)] if labels else []
    author = {"id": 7, "email": EMAIL}
    return {"completed_by": author, "was_cancelled": False, "result": result, **fields}


def dumped(folder: Path, content: Any, name: str = "export.json") -> Path:
    return write(folder, name, json.dumps(content))


def test_label_studios_export_is_read(tmp_path: Path):
    tasks = [
        task(1, annotation("cat", "person")),
        task(
            2, annotation("cat", was_cancelled=True), annotation("dog"), annotation("dog", "food")
        ),
        task(3, annotation("cat", was_cancelled=True)),
        task(4, annotation()),
        task(5),
    ]
    archive = read(dumped(tmp_path, tasks))
    assert labels_in(archive) == {
        "/data/local-files/?d=images/1.jpg": ("cat", "person"),
        "/data/local-files/?d=images/2.jpg": ("dog", "food"),
    }
    assert reasons_in(archive) == {"skipped": (1, "task 3"), "no_label": (2, "task 4")}


def test_the_fields_of_a_task_come_along(tmp_path: Path):
    content = [task(1, annotation("cat"), image="http://h/1.jpg", note="n")]
    (row,) = read(dumped(tmp_path, content)).rows
    assert row.data == {"image": "http://h/1.jpg", "note": "n"}


def test_a_task_with_several_pages_is_one(tmp_path: Path):
    pages = ["http://h/1.jpg", "http://h/2.jpg"]
    (row,) = read(dumped(tmp_path, [task(1, annotation("cat"), image=pages)])).rows
    assert row.data == {"image": pages}


@pytest.mark.parametrize("pages", [["1.jpg", "2.jpg"], ["1.jpg", "http://h/2.jpg"]])
def test_pages_that_are_files_are_left_out_with_the_reason(tmp_path: Path, pages: list[str]):
    for name in ("1.jpg", "2.jpg"):
        write(tmp_path, name)
    path = dumped(tmp_path, [task(1, annotation("cat"), image=pages)])
    archive = read(path, images=str(tmp_path))
    assert not archive.rows and reasons_in(archive) == {"pages": (1, "task 1")}
    (row,) = read(path, images="https://h").rows
    served = pages[1] if "//" in pages[1] else "https://h/2.jpg"
    assert row.data["image"] == ["https://h/1.jpg", served]
    alone_path = dumped(tmp_path, [task(1, annotation("cat"), image=["1.jpg"])])
    (alone,) = read(alone_path, images=str(tmp_path)).rows
    assert alone.file == tmp_path / "1.jpg"


HALF = "\ud83d"


@pytest.mark.parametrize(
    "data",
    [
        {"image": f"http://h/{HALF}.jpg"},
        {"image": f"data:image/png;base64,{HALF}"},
        {"image": f"{HALF}.jpg"},
        {"image": ["http://h/1.jpg", f"http://h/{HALF}.jpg"]},
        {"image": "http://h/1.jpg", "note": HALF},
    ],
)
def test_half_characters_are_left_out_with_a_reason(tmp_path: Path, data: dict[str, Any]):
    path = dumped(tmp_path, [task(1, annotation("cat"), **data), task(2, annotation("cat"))])
    for options in ({}, {"images": str(tmp_path)}, {"images": "https://h"}):
        archive = read(path, **options)
        assert len(archive.rows) == 1 and archive.left_out.keys() == {Reason.NOT_TEXT}
    if "note" not in data:
        records = [{**data, "label": "cat"}, {"image": "http://h/2.jpg", "label": "cat"}]
        assert reasons_in(read(dumped(tmp_path, records, "b.json"))).keys() == {"not_text"}


OURS: dict[str, Any] = {"meta": {"images": [{"name": "1.jpg"}]}}


def test_known_labels_of_our_own_export_stay_known(tmp_path: Path):
    known: dict[str, Any] = {"image": "http://h/1.jpg", "known_label": ["cat", "dog"]}
    predictions = [{"result": [choices_result("tags", ["food"])]}]
    content = [
        {"data": known, "predictions": predictions, **OURS},
        # A person has looked at it since.
        {"data": {**known, "image": "http://h/2.jpg"}, "annotations": [annotation("food")], **OURS},
    ]
    wanted = {"http://h/1.jpg": ("cat", "dog"), "http://h/2.jpg": ("food",)}
    assert labels_in(read(dumped(tmp_path, content), known_field="known_label")) == wanted
    for item in content:
        item["meta"] = {**OURS["meta"], "known_field": "known_label"}
    assert labels_in(read(dumped(tmp_path, content), known_field="was")) == wanted


def test_a_field_that_the_import_would_write_over_is_refused(tmp_path: Path):
    data = {"image": "http://h/1.jpg", "known_label": "dog"}
    path = dumped(tmp_path, [task(1, annotation("cat"), **data)])
    with pytest.raises(SettingsError) as caught:
        read(path, known_field="known_label")
    assert "--label-column known_label" in caught.value.fix and "--field" in caught.value.fix
    assert read(path, known_field="was").rows[0].data == data
    both = read(path, known_field="known_label", label_columns=("known_label", "tags"))
    assert both.rows[0].labels == ("dog", "cat")


def test_aliases_paths_and_former_names_are_understood(tmp_path: Path):
    config = (
        '<View><Image name="image" value="$image"/><Choices name="tags" toName="image">'
        '<Choice value="cat" alias="felis"/></Choices><Taxonomy name="kind" toName="image">'
        '<Choice value="animal"><Choice value="dog"/></Choice></Taxonomy></View>'
    )
    both = annotation("felis")
    both["result"].append(choices_result("kind", [["animal", "dog"]], "taxonomy"))
    # Exported before the alias was given.
    archive = read(dumped(tmp_path, [task(1, both), task(2, annotation("cat"))]), config)
    assert [row.labels for row in archive.rows] == [("felis", "animal / dog"), ("felis",)]


def test_nested_choices_of_a_flat_control_are_its_labels(tmp_path: Path):
    archive = read(dumped(tmp_path, [task(1, annotation(["food", "cat"]))]))
    assert archive.rows[0].labels == ("food", "cat")


def test_a_control_of_another_name_can_be_named(tmp_path: Path):
    path = dumped(tmp_path, [task(1, annotation("cat", name="animal"))])
    with pytest.raises(SettingsError) as caught:
        read(path)
    assert "Its labels are in: animal. Name one with --label-column." in str(caught.value)
    assert read(path, label_columns=("animal",)).rows[0].labels == ("cat",)


def test_labels_in_the_tasks_data_can_be_named(tmp_path: Path):
    content = [task(1, image="http://h/1.jpg", category="cat;dog")]
    archive = read(dumped(tmp_path, content), label_columns=("category",), separators=";")
    assert labels_in(archive) == {"http://h/1.jpg": ("cat", "dog")}


def test_an_image_in_another_field_can_be_named(tmp_path: Path):
    path = dumped(tmp_path, [task(1, annotation("cat"), photo="http://h/1.jpg")])
    with pytest.raises(SettingsError, match="Its fields are: photo"):
        read(path)
    (row,) = read(path, image_column="photo").rows
    assert (row.image, row.labels) == ("http://h/1.jpg", ("cat",))


@pytest.mark.parametrize("name", ["min.json", "rows.jsonl"])
def test_lists_of_objects_are_read(tmp_path: Path, name: str):
    objects: list[dict[str, Any]] = [
        {"image": "http://h/1.jpg", "id": 1, "tags": "cat", "annotator": 1, "annotation_id": 1},
        {"image": "http://h/2.jpg", "tags": {"choices": ["cat", "person"]}, "annotation_id": 2},
        {"image": "http://h/2.jpg", "tags": "cat", "annotation_id": 3},
        {"image": "http://h/3.jpg", "annotation_id": 4},
    ]
    lines = "\n".join(map(json.dumps, objects))
    path = write(tmp_path, name, lines if name.endswith("l") else json.dumps(objects, indent=1))
    archive = read(path)
    assert labels_in(archive) == {"http://h/1.jpg": ("cat",), "http://h/2.jpg": ("cat", "person")}
    assert reasons_in(archive) == {"no_label": (1, "row 4")}


def test_a_line_is_counted_as_an_editor_counts(tmp_path: Path):
    lines = '{"image": "http://h/1.jpg", "label": "cat"}\n\n{"image": "http://h/2.jpg"}\n'
    archive = read(write(tmp_path, "a.jsonl", lines))
    assert reasons_in(archive) == {"no_label": (1, "row 3")}


def test_labels_that_a_task_defines_are_labels(tmp_path: Path):
    config = choices_config(attributes='choice="multiple" value="$options"')
    content = [{"image": "http://h/1.jpg", "options": ["wolf"], "label": "wolf"}]
    (row,) = read(dumped(tmp_path, content), config).rows
    assert row.data == {"options": ["wolf"]}


def coco(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2, 3)],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 17, "bbox": [0, 0, 1, 1]},
            {"id": 2, "image_id": 1, "category_id": 17},
            {"id": 3, "image_id": 1, "category_id": 18},
            {"id": 4, "image_id": 2, "segments_info": [{"category_id": 18}]},
            {"id": 5, "image_id": 2, "category_id": 17, "attributes": {"state": "pseudo"}},
        ],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
    }
    return content | changes


@pytest.mark.parametrize("folder", ["", "images/", "elsewhere/"])
def test_the_categories_of_a_coco_files_annotations_are_labels(tmp_path: Path, folder: str):
    for number in (1, 2, 3):
        write(tmp_path, f"{folder}{number}.jpg")
    path = dumped(tmp_path, coco(), "instances.json")
    options = {"images": str(tmp_path / folder)} if folder == "elsewhere/" else {}
    archive = read(path, **options)
    assert labels_in(archive) == {"1.jpg": ("cat", "dog"), "2.jpg": ("dog",)}
    assert archive.rows[0].file == tmp_path / f"{folder}1.jpg"
    assert reasons_in(archive) == {"no_label": (1, "image 3: 3.jpg")}


def test_a_coco_files_images_may_be_served(tmp_path: Path):
    path = dumped(tmp_path, coco(), "instances.json")
    archive = read(path, images="/data/local-files/?d=val")
    assert archive.rows[0].image == "/data/local-files/?d=val/1.jpg"
    assert reasons_in(read(path)) == {"missing_file": (3, "image 1: 1.jpg")}


def test_our_own_coco_export_is_read_by_the_addresses_in_it(tmp_path: Path):
    served = ["/data/upload/1/x.jpg", "https://h/2.jpg", f"data:{'0' * 64}"]
    images = [
        {"id": n, "file_name": f"{n}.jpg", "image": address} for n, address in enumerate(served, 1)
    ]
    annotations = [{"image_id": n, "category_id": 17} for n in (1, 2, 3, 99)]
    path = dumped(tmp_path, coco(images=images, annotations=annotations))
    archive = read(path)
    assert labels_in(archive) == {address: ("cat",) for address in served[:2]}
    assert reasons_in(archive) == {
        "no_such_image": (1, "annotation 4"),
        "missing_file": (1, "image 3: 3.jpg"),
    }
    # What somebody names comes first.
    assert read(path, images="https://a").rows[0].image == "https://a/1.jpg"


IMAGES = [{"id": 1, "file_name": "0.jpg"}, {"id": 1, "file_name": "1.jpg"}]
CATEGORIES = [{"id": 17, "name": "cat"}, {"id": 17, "name": "dog"}]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": IMAGES}, "two of its images have the id 1: 0.jpg and 1.jpg."),
        (
            {"images": [IMAGES[0], {"id": "1", "file_name": "1.jpg"}]},
            "two of its images have the id 1: 0.jpg and 1.jpg.",
        ),
        ({"categories": CATEGORIES}, "two of its categories have the id 17: cat and dog."),
    ],
)
def test_an_id_of_a_coco_file_that_stands_for_two_things_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
):
    path = dumped(tmp_path, coco(**changes))
    with pytest.raises(SettingsError) as caught:
        read(path, images="https://h")
    assert said in caught.value.message and "import each file alone" in caught.value.fix


def test_what_a_coco_file_says_twice_in_the_same_words_is_read_once(tmp_path: Path):
    twice = {part: 2 * coco()[part] for part in ("images", "categories", "annotations")}
    archive = read(dumped(tmp_path, coco(**twice)), images="https://h")
    assert labels_in(archive) == {"https://h/1.jpg": ("cat", "dog"), "https://h/2.jpg": ("dog",)}
    assert reasons_in(archive) == {"no_label": (1, "image 3")}


@pytest.mark.parametrize("kind", [int, float, str])
@pytest.mark.parametrize("other", [int, float, str])
def test_ids_of_a_coco_file_may_be_whole_numbers_in_any_form(tmp_path: Path, kind: Any, other: Any):
    content = coco(
        images=[{"id": kind(1), "file_name": "1.jpg"}],
        annotations=[{"image_id": other(1), "category_id": kind(17)}],
        categories=[{"id": other(17), "name": "cat"}],
    )
    assert labels_in(read(dumped(tmp_path, content), images="https://h")) == {
        "https://h/1.jpg": ("cat",)
    }


def test_annotations_of_no_image_in_a_coco_file_are_told_with_ids_of_both(tmp_path: Path):
    content = coco(
        images=[{"id": "0001", "file_name": "1.jpg"}],
        annotations=[{"image_id": 1, "category_id": 17}],
    )
    with pytest.raises(SettingsError, match=r"such as the text '0001', .* such as the number 1[.]"):
        read(dumped(tmp_path, content), images="https://h")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"secret": EMAIL}, "JSON of a form that is not known"),
        ("text", "JSON of a form that is not known"),
        ([EMAIL, 1], "JSON of a form that is not known"),
        ([[{"image": EMAIL}]], "JSON of a form that is not known"),
        ([{"data": {"image": "http://h/1.jpg"}, "annotations": [EMAIL]}], "task 1 is no task"),
        ([{"id": EMAIL, "data": None, "annotations": []}], "task …@… is no task"),
        ([{"image": "http://h/1.jpg", EMAIL: 1}], "It has: image, …@…."),
        (coco(categories=[{"id": 17}]), "item 1 of its categories has no 'name'"),
        (coco(annotations=[{"image_id": 1, "caption": EMAIL}]), "(not of captions)"),
        (coco(annotations=[{"image_id": 1, "category_id": 9}]), "annotation 1 has a category"),
        (coco(images=[{"id": 1}]), "item 1 of its images has no 'file_name'"),
    ],
)
def test_a_json_file_of_another_form_is_told_and_not_shown(tmp_path: Path, content: Any, said: str):
    text = json.dumps(content)
    path = write(tmp_path, "a.json", f"[{text}" if content == "text" else text)
    with pytest.raises(SettingsError) as caught:
        read(write(tmp_path, "a.json", f" \n{text}") if content != "text" else path)
    message = str(caught.value)
    assert EMAIL not in message and len(message.replace(str(path), "")) < 500
    assert said in message or (content == "text" and "is not JSON: line 1" in message)


@pytest.mark.parametrize("tail", ["", "]", "}", "\x00", "["])
def test_a_json_file_on_one_line_that_is_broken_is_never_printed(tmp_path: Path, tail: str):
    text = json.dumps([task(n, annotation("cat")) for n in range(50)])[:-1] + ",\ufeff" + tail
    with pytest.raises(SettingsError) as caught:
        read(write(tmp_path, "a.json", text))
    message = str(caught.value).replace(str(tmp_path), "")
    assert "is not JSON: line 1, column" in message
    assert EMAIL not in message and len(message) < 200


def test_a_json_file_that_is_nested_without_end_or_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(SettingsError, match="nested too deeply"):
        read(write(tmp_path, "a.json", "[" * 200_000))
    monkeypatch.setattr("backend.text_files.MAX_JSON_BYTES", 10)
    with pytest.raises(SettingsError, match="Cut it into several files"):
        read(dumped(tmp_path, [task(1)]))
