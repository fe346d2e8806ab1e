"""`ClipBackend` under label-studio-ml: 1.0.9's own server, and the ways of 2.x.

2.x is on no package registry, only in a git repository, so its base class is replaced here by a
small stand-in with the same signatures. The last test runs the real one where it was fetched.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from backend.runtime import Runtime
from backend.server import ml_backend
from backend.server.ml_backend import ClipBackend
from tests.support.builders import LABELS, ROOT, choices_config, contract, task
from tests.support.fixtures import MakeRuntime
from tests.support.processes import child_environment
from tests.support.stub_label_studio import KEY, StubStudio

CHECKOUT = "ML_BACKEND_CHECKOUT"
"""Environment variable: a checkout of label-studio-ml-backend."""
ENABLE = (
    "git clone https://github.com/HumanSignal/label-studio-ml-backend DIR && "
    "ML_BACKEND_CHECKOUT=DIR ./uvw run --with semver pytest -n 0 "
    "tests/integration/test_ml_backend.py"
)
EAGER = choices_config(attributes='choice="multiple" model_score_threshold="0"')


@pytest.fixture
def runtime(make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    made = make_runtime(offline=True)
    monkeypatch.setattr(ml_backend, "process_runtime", lambda: made)
    return made


@pytest.fixture(scope="module")
def recipe() -> str:
    """The file that docs/label-studio-ml.md gives to a user."""
    page = (ROOT / "docs" / "label-studio-ml.md").read_text()
    (found,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    return str(found)


# 1.0.9


@pytest.fixture
def server(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    api = importlib.import_module("label_studio_ml.api")
    # Its manager keeps the model of whoever came last in a class attribute.
    monkeypatch.setattr(api._manager.__class__, "_current_model", {})
    # Its manager writes down each event below the working directory, which is a temporary one.
    yield api.init_app(model_class=ClipBackend).test_client()


def test_its_own_server_sets_up_and_predicts(server: FlaskClient):
    setup = contract("setup")["body"] | {"schema": EAGER}
    assert server.post("/setup", json=setup).status_code == 200
    body = contract("predict_one_task")["body"]
    body |= {"tasks": [task(1), {"id": 2, "data": {}}, task(3)], "label_config": EAGER}
    answer = server.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    first, second, third = answer.json["results"]
    for item in (first, third):
        assert item["result"][0]["value"] == {"choices": list(LABELS)}
        # Its /setup tells another version, so ours must not contradict it in the items.
        assert "model_version" not in item
    assert "result" not in second


@pytest.mark.parametrize("name", ["predict_many_tasks", "predict_interactive"])
def test_its_own_server_takes_what_label_studio_sends(server: FlaskClient, name: str):
    assert server.post("/setup", json=contract("setup")["body"]).status_code == 200
    body = contract(name)["body"]
    answer = server.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    assert len(answer.json["results"]) == len(body["tasks"])


def test_its_own_server_is_healthy(server: FlaskClient):
    assert server.get("/health").json["status"] == "UP"


def test_a_broken_config_does_not_break_its_setup(server: FlaskClient):
    setup = contract("setup")["body"] | {"schema": "<View>"}
    assert server.post("/setup", json=setup).status_code == 200


def test_an_event_leads_to_nothing_where_there_are_no_workers(runtime: Runtime):
    backend = ClipBackend("1.1", EAGER, runtime=runtime)
    assert backend.fit((), event="ANNOTATION_CREATED", data={}, job_id="1") == {}
    assert backend.process_event("ANNOTATION_CREATED", {}, "1", {}) == {}


def test_the_recipe_loads_the_encoder_before_it_takes_requests(
    runtime: Runtime, recipe: str, monkeypatch: pytest.MonkeyPatch
):
    loads: list[bool] = []
    monkeypatch.setattr(runtime.encoder, "load", lambda: loads.append(True))
    made: dict[str, Any] = {}
    exec(compile(recipe, "_wsgi.py", "exec"), made)
    assert loads == [True]
    client = made["app"].test_client()
    assert client.post("/setup", json=contract("setup")["body"]).status_code == 200


# 2.x


class BaseOfVersion2:
    """What `LabelStudioMLBase` of 2.x does, as far as a model class can see."""

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        self._kept: dict[str, Any] = {}
        self.use_label_config(label_config)
        self.setup()

    def use_label_config(self, label_config: str | None) -> None:
        self.label_config = label_config

    def setup(self) -> None:
        """For subclasses."""

    def get(self, key: str) -> Any:
        return self._kept.get(key)

    def set(self, key: str, value: str) -> None:
        assert isinstance(value, str)
        self._kept[key] = value

    @property
    def model_version(self) -> str:
        return str(self.get("model_version"))


@pytest.fixture
def version2(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`ClipBackend` as it comes out where 2.x is installed."""
    monkeypatch.setattr("label_studio_ml.model.LabelStudioMLBase", BaseOfVersion2)
    spec = importlib.util.find_spec("backend.server.ml_backend")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    monkeypatch.setattr(loaded, "process_runtime", lambda: runtime)
    return loaded.ClipBackend


@pytest.mark.parametrize(("tells", "key"), [(True, KEY), (False, "1")])
def test_2x_finds_what_a_project_has_learned_though_it_gets_its_number_alone(
    version2: Any,
    make_runtime: MakeRuntime,
    studio: StubStudio,
    monkeypatch: pytest.MonkeyPatch,
    tells: bool,
    key: str,
):
    if not tells:
        studio.before = lambda method, path: 404
    asking = make_runtime(label_studio_url=studio.url, label_studio_api_key="f" * 40)
    for _ in range(2):
        backend = version2(project_id="1", label_config=EAGER, runtime=asking)
        assert backend.project == key
    # It is asked once; while it does not answer, again.
    assert studio.calls.count(("GET", "/api/projects/1/")) == (1 if tells else 2)


def test_2x_knows_the_version_after_construction(version2: Any, runtime: Runtime):
    backend = version2(project_id="1.1795416973", label_config=EAGER)
    assert backend.project_id == "1.1795416973"
    assert backend.label_config == EAGER
    assert backend.model_version == ClipBackend("1.1795416973", EAGER).version


def test_2x_predicts_with_a_context(version2: Any):
    backend = version2(project_id="1.1", label_config=EAGER)
    items = backend.predict([task(1), {"id": 2, "data": {}}], context=None, login=None)
    assert len(items) == 2
    assert "model_version" not in items[0]
    assert backend.model_version.startswith("stub-z-")
    assert items[0]["result"][0]["value"] == {"choices": list(LABELS)}


def test_2x_fits_by_event_and_data(version2: Any):
    backend = version2(project_id="1.1", label_config=EAGER)
    assert backend.fit("START_TRAINING", {"project": {"id": 1}}, extra=1) == {}


def test_2x_can_be_made_without_a_config(version2: Any):
    backend = version2(project_id="1.1")
    assert backend.model_version.startswith("stub-z-")
    assert "result" not in backend.predict([task(1)])[0]


def test_both_ways_give_the_same_predictions(version2: Any, runtime: Runtime):
    new = version2(project_id="1.1", label_config=EAGER).predict([task(1)])
    assert new == ClipBackend("1.1", EAGER, runtime=runtime).predict([task(1)])


ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from _wsgi import app
client = app.test_client()
answers = [client.post(path, json=body) for path, body in json.load(sys.stdin)]
print(json.dumps([[answer.status_code, answer.json] for answer in answers]))
"""


def test_the_recipe_serves_under_the_real_2x(recipe: str, tmp_path: Path):
    checkout = os.environ.get(CHECKOUT)
    if not checkout:
        pytest.skip(f"label-studio-ml 2.x is on no package index. Enable this test with: {ENABLE}")
    (tmp_path / "_wsgi.py").write_text(recipe)
    setup = contract("setup")["body"] | {"schema": EAGER, "extra_params": None}
    predict = contract("predict_one_task")["body"] | {"tasks": [task(1)], "label_config": EAGER}
    event = {"action": "START_TRAINING", "project": {"id": 1, "label_config": EAGER}}
    given = {"LS_CLIP_ENCODER": "offline", "LS_CLIP_STORE": "store", "MODEL_DIR": str(tmp_path)}
    environment = child_environment(given)
    environment["PYTHONPATH"] = os.pathsep.join([checkout, *sys.path, str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK, str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        input=json.dumps([("/setup", setup), ("/predict", predict), ("/webhook", event)]),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    set_up, predicted, trained = json.loads(done.stdout.splitlines()[-1])
    assert set_up[0] == predicted[0] == 200, (set_up, predicted)
    assert set_up[1]["model_version"].startswith("offline-")
    (item,) = predicted[1]["results"]
    assert item["result"][0]["value"] == {"choices": list(LABELS)}
    assert trained[0] == 201
