"""Files of an export get their names together: after a failure all are as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import SettingsError
from backend.projects.export.files import Target, drafts


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("failing", ["images", "main.csv", "splits.csv"])
@pytest.mark.parametrize("were_there", [True, False])
def test_a_failure_at_any_of_the_files_leaves_all_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, were_there: bool, failing: str, links: bool
):
    targets = [
        Target(tmp_path / "images", is_folder=True),
        Target(tmp_path / "main.csv"),
        Target(tmp_path / "splits.csv"),
    ]
    if were_there:
        for target in targets[1:]:
            target.path.write_text("before")
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}

    def refuse(self: Path, target: Path) -> Path:
        if target.name == failing and self.name.endswith(".part"):
            raise OSError(28, "No space left on device")
        return move(self, target)

    move = Path.replace
    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    if not links:

        def no_links(self: Path, target: Path) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", no_links)
    with pytest.raises(SettingsError, match="No space left"), drafts(targets):
        (targets[0].draft / "1.jpg").write_text("x")
        for target in targets[1:]:
            target.draft.write_text("after")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    with drafts(targets):
        for target in targets[1:]:
            target.draft.write_text("after")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "main.csv", "splits.csv"]
    assert {target.path.read_text() for target in targets[1:]} == {"after"}
