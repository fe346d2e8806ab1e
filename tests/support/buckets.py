"""A server that speaks S3, and the environment by which this process finds it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest

from tests.support.processes import free_port
from tests.support.waiting import until

KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of a server; not in this process, whose threads it would use."""
    port = free_port()
    moto = subprocess.Popen(
        [sys.executable, "-c", f"from moto.server import main; main(['-p', '{port}'])"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        moto.kill()
        moto.wait()


def name_in_environment(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables that name a server and the keys to it."""
    variables = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT": server,
        "AWS_ENDPOINT_URL": server,
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def make_bucket(server: str, name: str) -> Any:
    """Create a bucket, as soon as the server answers; returns a client."""
    client = boto3.client("s3", endpoint_url=server, **KEYS)

    def created() -> bool:
        try:
            client.create_bucket(Bucket=name)
        except client.exceptions.BucketAlreadyOwnedByYou:
            return True
        except Exception:  # It is still starting.
            return False
        return True

    until(created)
    return client
