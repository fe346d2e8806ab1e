"""Tests that need a program which is not installed everywhere."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_or_fail(reason: str) -> NoReturn:
    """Skip on a person's machine; fail where everything has to be there.

    Args:
        reason: what is missing, with the command that enables the test.
    """
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
