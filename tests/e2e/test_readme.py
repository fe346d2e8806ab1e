"""The commands of the README and of docs/install.md are typed here as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import requests

from backend.demo.servers import new_secret
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.refusals import Refusal
from backend.processes import LocalProcess, answers_ok, free_port, wait_for
from backend.settings import Settings
from tests.support.live import MakeProject, Servers

ROOT = Path(__file__).parents[2]
DEMO = "./uvw run ls-clip demo"
TESTS = "./uvw run pytest"
SUGGEST = './uvw run ls-clip suggest --encoder offline --labels "cat,coffee,rocket" photo.jpg'
STUDIO = (
    "ML_BLOCK_LOCAL_IP=false SSRF_PROTECTION_ENABLED=false "
    "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK=true "
    "./uvw tool run --from label-studio==1.23.2 label-studio start --internal-host 127.0.0.1 "
    "--username you@example.com"
)
SERVE = "./uvw run ls-clip serve"
CONNECT = "./uvw run ls-clip connect 1"


def commands(file: str) -> list[str]:
    """The lines of all bash blocks of a page, in order."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / file).read_text(), re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with ./uvw in it, so that a command can be typed beside a photo."""
    (tmp_path / "uvw").symlink_to(ROOT / "uvw")
    photo = files("skimage.data").joinpath("chelsea.png").read_bytes()
    (tmp_path / "photo.jpg").write_bytes(photo)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    """The environment of a person who stands in the checkout, with the packages installed."""
    return {**os.environ, "UV_PROJECT": str(ROOT), "UV_NO_SYNC": "1", **more}


def type_in(command: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in a shell."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_both_readmes_show_the_commands_that_are_tested_here() -> None:
    assert commands("README.md") == [DEMO, TESTS, SUGGEST, STUDIO, SERVE, CONNECT]
    assert commands("README.ja.md") == commands("README.md")
    assert TESTS.removeprefix("./") in (ROOT / ".ci" / "run").read_text()


def test_the_test_command_finds_the_tests(desk: Path) -> None:
    # Not the whole run, which would run this test again.
    done = type_in(f"cd {ROOT} && {TESTS} --collect-only -q tests/unit/test_labels_config.py", desk)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_first_look_names_the_cat(desk: Path) -> None:
    done = type_in(SUGGEST + " --json", desk)
    assert done.returncode == 0, done.stderr
    assert '"suggested": [\n   "cat"\n  ]' in done.stdout


def refuses_strangers(url: str) -> bool:
    """Whether Label Studio lets nobody sign up who was not invited."""
    session = requests.Session()
    page = f"{url}/user/signup/"
    session.get(page, timeout=30)
    form = {
        "email": "stranger@example.com",
        "password": new_secret(),
        "csrfmiddlewaretoken": session.cookies["csrftoken"],
    }
    return session.post(page, data=form, headers={"Referer": page}, timeout=30).status_code == 403


def listeners(port: int) -> set[str]:
    """Addresses at which this machine listens on a port, as /proc/net writes them."""
    rows = [
        line.split()
        for file in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]
    ]
    return {row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}


def test_label_studio_starts_with_both_switches_for_this_machine_and_its_people(
    desk: Path, tmp_path: Path
) -> None:
    port, key = free_port(18080), new_secret()
    options = f"--port {port} --data-dir {tmp_path / 'studio'} --no-browser"
    user = {
        # The user types it.
        "LABEL_STUDIO_PASSWORD": new_secret(),
        "LABEL_STUDIO_USER_TOKEN": key,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
    }
    command = ["bash", "-c", f"cd {desk} && {STUDIO} {options}"]
    with LocalProcess(command, environment(**user), tmp_path / "studio.log") as server:
        url = f"http://127.0.0.1:{port}"
        wait_for(server, answers_ok(f"{url}/health"), "Label Studio", 240)
        settings = Settings(_env_file=None, label_studio_url=url, label_studio_api_key=key)
        studio = LabelStudioClient(settings)
        assert studio.backends.refusal("http://127.0.0.1:9090") != Refusal.PRIVATE_ADDRESS
        refusal = studio.webhooks.refusal("http://127.0.0.1:9090/webhook")
        assert refusal != Refusal.PRIVATE_ADDRESS
        assert listeners(port) == {f"0100007F:{port:04X}"}
        assert refuses_strangers(url)


def test_nobody_can_sign_up_in_the_demo(servers: Servers) -> None:
    assert refuses_strangers(servers.label_studio.url)


@pytest.fixture
def env_file(desk: Path, servers: Servers, settings: Settings) -> Iterator[Path]:
    """plugin_config/settings.env, filled in as the README says."""
    text = (ROOT / "plugin_config" / "settings.env").read_text()
    values = {
        "LABEL_STUDIO_URL": servers.studio_url,
        "LABEL_STUDIO_API_KEY": settings.label_studio_api_key.get_secret_value(),
        "LS_CLIP_ENCODER": "offline",
        "BASIC_AUTH_PASS": "made-up",
        "LS_CLIP_WEBHOOK_SECRET": "made-up-too",
    }
    for name, value in values.items():
        text, count = re.subn(rf"(?m)^{name}=.*$", f"{name}={value}", text)
        assert count == 1, name
    (desk / ".env").write_text(text)
    yield desk / ".env"


def test_the_steps_to_connect_a_project_work(
    desk: Path, env_file: Path, studio: LabelStudioClient, make_project: MakeProject
) -> None:
    project = make_project(photos=3)
    more = {"LS_CLIP_STORE": str(desk / "store"), "LS_CLIP_PORT": "29191"}
    command = ["bash", "-c", f"cd {desk} && exec {SERVE}"]
    with LocalProcess(command, environment(**more), desk / "serve.log") as server:
        wait_for(server, answers_ok("http://127.0.0.1:29191/health"), "ls-clip serve", 120)
        done = type_in(CONNECT.replace("connect 1", f"connect {project}"), desk, **more)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 tasks" in done.stderr
    assert len(studio.predictions.of_project(project)) == 3


def test_the_installation_without_uv_run_works_as_written() -> None:
    with tempfile.TemporaryDirectory() as folder:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout.decode()
        for name in filter(None, listed.split("\0")):
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
        lines = commands("docs/install.md")
        # The python3 of this test run, whatever the machine calls python3.
        script = "\n".join(["set -e", *lines]).replace("python3 ", f"{sys.executable} ", 1)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "connect" in done.stdout
        versions = subprocess.run(
            [
                "venv/bin/python",
                "-c",
                "from importlib.metadata import version as v; "
                "print(v('flask'), v('werkzeug'), v('label-studio-ml'))",
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert versions[0] >= "3.1"
        assert versions[1] >= "3.1"
