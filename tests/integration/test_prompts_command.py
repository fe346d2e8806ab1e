"""``ls-clip prompts``: labels that the encoder cannot read, and the config to say them in."""

from __future__ import annotations

import json
from pathlib import Path

from backend.labels.prompt_stubs import STUB
from tests.support.builders import choices_config
from tests.support.fixtures import Cli
from tests.support.stub_label_studio import StubStudio


def test_it_lists_them_and_writes_the_config_with_places_to_fill_in(
    cli: Cli, studio: StubStudio, tmp_path: Path
):
    studio.config = choices_config("cat", "犬", "猿")
    code, said = cli("prompts", "1")
    assert code == 0, said
    assert "犬" in said and "猿" in said and "cat" not in said.replace("category", "")
    assert "ls-clip connect 1" in said and "about 6" in said
    assert 'model_skip="true"' in said
    written = (tmp_path / "project-1-config.xml").read_text()
    assert written.count(STUB) == 2 and written.replace(STUB, "") == studio.config + "\n"
    studio.config += "\n"
    assert cli("prompts", "1", "--output", "again.xml")[0] == 0
    assert (tmp_path / "again.xml").read_text() == written


def test_a_file_that_is_there_is_not_overwritten(cli: Cli, studio: StubStudio, tmp_path: Path):
    studio.config = choices_config("犬")
    (tmp_path / "mine.xml").write_text("mine")
    code, said = cli("prompts", "1", "--output", "mine.xml")
    assert code == 1 and "mine.xml" in said and "--output" in said
    assert (tmp_path / "mine.xml").read_text() == "mine"


def test_where_every_label_is_read_it_says_so_and_writes_nothing(
    cli: Cli, studio: StubStudio, tmp_path: Path
):
    code, said = cli("prompts", "1")
    assert code == 0 and "all of them" in said
    assert not list(tmp_path.glob("*.xml"))


def test_json_names_the_labels_and_the_file(cli: Cli, studio: StubStudio):
    studio.config = choices_config("cat", "犬")
    code, said = cli("prompts", "1", "--json", "--output", "new.xml")
    assert code == 0
    line = next(line for line in said.splitlines() if line.startswith("{"))
    assert json.loads(line) == {"labels": {"犬": 0}, "learned_from": 6, "config": "new.xml"}


def test_a_label_studio_that_is_away_is_named(cli: Cli, tmp_path: Path):
    code, said = cli("prompts", "1", LABEL_STUDIO_URL="http://127.0.0.1:9")
    assert code == 1 and "127.0.0.1:9" in said and "Fix:" in said
    assert not list(tmp_path.glob("*.xml"))
