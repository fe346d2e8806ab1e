"""Images in an S3 bucket, through Label Studio's own storage; the bucket is moto's server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from backend.labelstudio.client import LabelStudioClient
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from tests.support.live import MakeProject, Servers

KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}


@pytest.fixture
def bucket(servers: Servers) -> Iterator[str]:
    """The endpoint of a server with three photos in the bucket ``photos``."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=endpoint, **KEYS)
    client.create_bucket(Bucket="photos")
    for path in sorted((servers.files / "images").iterdir())[:3]:
        client.put_object(Bucket="photos", Key=f"set/{path.name}", Body=path.read_bytes())
    yield endpoint
    client.close()
    server.stop()


@pytest.mark.parametrize("presign", [True, False], ids=["redirected", "proxied"])
def test_images_in_a_bucket_are_reached_through_label_studio(
    presign: bool,
    bucket: str,
    settings: Settings,
    studio: LabelStudioClient,
    make_project: MakeProject,
    api: Callable[..., Any],
    tmp_path: Path,
) -> None:
    project = make_project(photos=0)
    storage = api(
        "POST",
        "/api/storages/s3/",
        json={
            "project": project,
            "bucket": "photos",
            "prefix": "set",
            "regex_filter": ".*jpg",
            "use_blob_urls": True,
            "presign": presign,
            "s3_endpoint": bucket,
            **KEYS,
        },
    )
    api("POST", f"/api/storages/s3/{storage['id']}/sync")
    # The presigned address leads to the bucket itself, which is a private host here.
    mine = settings.model_copy(
        update={"allowed_hosts": "127.0.0.1", "store": str(tmp_path / "store")}
    )

    report = connect(mine, studio, Runtime(mine), project)

    assert (report.tasks, report.imported, report.failures) == (3, 3, {})
    again = connect(mine, studio, Runtime(mine), project)
    assert again.imported == 0
