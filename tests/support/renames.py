"""What the tests of renamed labels do with a project."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backend.training.approvals import Approval

Labels = Callable[..., None]
"""Gives the project these labels, as somebody did who edited the labeling config."""
Rename = Callable[..., Any]
"""Renames a label of the project."""
Pulled = Callable[[], dict[str, list[Approval]]]
"""Control name -> what is approved in the project now."""
