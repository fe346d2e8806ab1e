"""A Label Studio that writes its own public name into the addresses of images."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from backend.demo.servers import LocalStudio, new_secret
from backend.errors import ImageError
from backend.images.fetcher import ImageFetcher
from backend.labelstudio.client import LabelStudioClient
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from tests.e2e.conftest import EMAIL
from tests.support.live import Servers
from tests.support.processes import free_port

CONFIG = (
    '<View><Image name="image" value="$image"/><Choices name="tags" toName="image" '
    'choice="multiple"><Choice value="cat"/><Choice value="rocket"/></Choices></View>'
)


@pytest.fixture(scope="module")
def named(
    servers: Servers, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """Settings for a second Label Studio, a copy of the first, that is known as localhost."""
    folder = tmp_path_factory.mktemp("named") / "label-studio"
    port = free_port()
    shutil.copytree(servers.files.parent / "label-studio", folder)
    with LocalStudio(
        folder,
        port,
        email=EMAIL,
        password=new_secret(),
        token=new_secret(),
        photos=servers.files,
        public_url=f"http://localhost:{port}",
    ) as second:
        second.wait()
        yield settings.model_copy(update={"label_studio_url": second.url, "threshold": 0.0})


def test_images_under_label_studios_public_name_are_fetched_from_it_with_the_token(
    named: Settings, servers: Servers, tmp_path: Path
) -> None:
    studio = LabelStudioClient(named)
    project = int(studio.projects.create("named", CONFIG)["id"])
    body = {"project": project, "path": str(servers.files / "images"), "use_blob_urls": True}
    token = named.label_studio_api_key.get_secret_value()
    headers = {"Authorization": f"Token {token}"}
    storages = f"{named.label_studio_url}/api/storages/localfiles/"
    storage = requests.post(storages, json=body, headers=headers, timeout=60).json()["id"]
    requests.post(f"{storages}{storage}/sync", headers=headers, timeout=60).raise_for_status()
    tasks = list(studio.tasks.iterate(project))
    public = named.label_studio_url.replace("127.0.0.1", "localhost")
    assert tasks and all(task["data"]["image"].startswith(f"{public}/data/") for task in tasks)

    with pytest.raises(ImageError) as refused:
        ImageFetcher(named, dict).fetch(tasks[0]["data"]["image"])
    assert f"LS_CLIP_LABEL_STUDIO_PUBLIC_URL={public}" in refused.value.fix

    told = named.model_copy(
        update={"label_studio_public_url": public, "store": str(tmp_path / "store")}
    )
    report = connect(told, studio, Runtime(told), project)
    assert (report.imported, report.failures) == (len(tasks), {})
