"""The bulk benchmark's own arithmetic and tables; nothing here starts a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.labels.config import parse_config
from benchmarks import bulk, bulk_servers, bulk_stages, report
from benchmarks.bulk_stages import Cost, Stage, Stages


def stages() -> Stages:
    return Stages(
        [
            Stage("fetch", "", Cost(0.004, 0.012), Cost(0.002, 0.010)),
            Stage("decode", "", Cost(0.005), Cost(0.004)),
            Stage("encode", "", Cost(0.050), Cost(0.030)),
            Stage("import", "", Cost(0.001, 0.059), Cost(0.001, 0.003)),
        ],
        Stage("read", "", Cost(0.002), Cost(0.001)),
        [Stage("encode (other)", "", Cost(0.2), Cost(0.1))],
        0.25,
    )


def test_a_workers_stages_are_summed_with_label_studios_share_and_without_other_encoders():
    measured = stages()
    assert measured.core_seconds == pytest.approx(0.050)
    rows, note = bulk_stages.outcome(measured)
    total = next(row for row in rows if row["stage"].startswith("sum"))
    assert total["one image alone"] == "131.0"
    assert total["as a worker"] == "50.0"
    assert total["of that Label Studio"] == "13.0"
    assert total["alone / worker"] == "2.62"
    assert rows[-1]["stage"] == "encode (other)"
    # Reading from the disk takes the place of fetching.
    assert measured.core_seconds_from_disk == pytest.approx(0.039)
    nearer = next(row for row in rows if row["stage"] == "sum (offline, from the disk)")
    assert (nearer["as a worker"], nearer["of that Label Studio"]) == ("39.0", "3.0")
    assert "0.25 cores" in note


@pytest.mark.parametrize(
    ("value", "goal", "text"),
    [(0.8765, "0.9", "0.88 (goal 0.9)"), (9.96, "", "10.0"), (123.4, "100", "123 (goal 100)")],
)
def test_ratios_are_rounded_by_size(value: float, goal: str, text: str):
    assert bulk_servers.ratio(value, goal) == text


def test_a_part_replaces_its_own_table_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = tmp_path / "page.md"
    page.write_text("\n\n".join(["# Page", *(m for p in bulk.PARTS for m in bulk.markers(p)), "."]))
    monkeypatch.setattr(bulk, "PAGE", page)
    bulk.write("memory", bulk.section(([{"tasks": 1600}], "Old."), "1 core"))
    bulk.write("large", bulk.section(([{"tasks": 10_000}], "Kept."), "1 core"))
    bulk.write("memory", bulk.section(([{"tasks": 160}], "New."), "2 cores"))
    text = page.read_text()
    assert "Kept." in text and "New." in text and "Old." not in text
    assert text.index("| 160 |") < text.index("<!-- end of memory -->")
    with pytest.raises(ValueError, match="lacks"):
        report.put(page, "<!-- nothing -->", "<!-- end -->", "")


def test_the_document_has_every_part():
    text = bulk.PAGE.read_text()
    assert all(text.count(marker) == 1 for part in bulk.PARTS for marker in bulk.markers(part))


def test_copies_are_other_addresses_of_the_same_file_and_labels_are_escaped():
    first, second = bulk_servers.address("a.jpg"), bulk_servers.address("a.jpg", 7)
    assert second == first + "&copy=7"
    config = parse_config(bulk_servers._config(["cat", 'a "b" & <c>']))
    assert [label.key for label in config.controls[0].labels] == ["cat", 'a "b" & <c>']
    assert config.evidence is not None


def test_the_command_line_takes_parts_and_sizes():
    options = bulk.parsed(["--data", "x", "--part", "large", "--part", "memory", "--tasks", "9"])
    assert options.part == ["large", "memory"] and options.tasks == [9]
    assert bulk.parsed(["--data", "x"]).part == list(bulk.PARTS)
