"""Two calls of a command at once, each a process of its own: the second one is refused."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.support.archives import write
from tests.support.processes import run_cli, start_cli
from tests.support.stub_label_studio import StubStudio
from tests.support.waiting import PATIENCE


def test_two_imports_at_once_make_each_task_once(studio: StubStudio, tmp_path: Path):
    variables = {
        "HOME": str(tmp_path),
        "LABEL_STUDIO_URL": studio.url,
        "LABEL_STUDIO_API_KEY": "f" * 40,
        "LS_CLIP_STORE": str(tmp_path / "store"),
    }
    write(tmp_path, "a.csv", "image,label\nhttp://h/1.jpg,cat\nhttp://h/2.jpg,dog\n")
    begun, ended = threading.Event(), threading.Event()

    def hold(method: str, path: str) -> None:
        if path.endswith("/import"):
            begun.set()
            ended.wait(PATIENCE)

    studio.before = hold
    call = ("import-archive", "1", "a.csv")
    log = tmp_path / "first.log"
    first = start_cli(*call, cwd=tmp_path, log=log, variables=variables)
    try:
        assert begun.wait(PATIENCE), log.read_text()
        second = run_cli(*call, "--field", "was", cwd=tmp_path, **variables)
    finally:
        ended.set()
        first.wait(PATIENCE)
    assert second.returncode == 1
    assert "Another archive is being imported into project 1." in second.stderr
    assert first.returncode == 0, log.read_text()
    assert [data["known_label"] for data in studio.tasks.values()] == ["cat", "dog"]
    studio.before = lambda method, path: None
    again = run_cli(*call, cwd=tmp_path, **variables)
    assert again.returncode == 0 and "2 were there already" in again.stderr
