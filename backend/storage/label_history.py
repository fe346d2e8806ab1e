"""What is remembered of labels that a project's labeling config does not have any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter

SCHEMA = 1
"""Version of the file's format."""


@dataclass(frozen=True)
class FormerLabel:
    """A label that was removed from its control, or got another name.

    Attributes:
        since: unix time from which it was known, 0 if from the first.
        until: unix time at which it was seen to be gone.
        place: its index among the control's labels.
        settled: whether a person has said that it was not renamed.
    """

    since: float
    until: float
    place: int
    settled: bool = False


@dataclass(frozen=True)
class LabelHistory:
    """The labels of the past, of all controls of a project.

    Attributes:
        began: unix time from which changes of the config are known; 0: not recorded.
        gone: control name -> key -> the former label.
        conditions: control name -> when it is shown, as a text that differs where that differs;
            None: not recorded.
    """

    began: float = 0.0
    gone: Mapping[str, Mapping[str, FormerLabel]] = field(default_factory=dict)
    conditions: Mapping[str, str] | None = None

    def after(
        self,
        before: Mapping[str, Mapping[str, float]],
        labels: Mapping[str, Sequence[str]],
        conditions: Mapping[str, str] | None,
        now: float,
    ) -> LabelHistory:
        """The history once the config is seen to have these labels.

        Args:
            before: control name -> key -> since when it was known, as it was recorded last.
            labels: control name -> keys of its labels now, in order.
            conditions: as the attribute.
            now: unix time in seconds.
        """
        gone: dict[str, dict[str, FormerLabel]] = {}
        for control in {**self.gone, **before}:
            removed = dict(self.gone.get(control, {}))
            for place, (key, since) in enumerate(before.get(control, {}).items()):
                removed[key] = FormerLabel(since, now, place)
            there = {*labels.get(control, ())}
            left = {key: former for key, former in removed.items() if key not in there}
            if left:
                gone[control] = left
        return LabelHistory(self.began, gone, conditions)

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LabelHistory:
        """Inverse of `as_dict`.

        Raises:
            KeyError, ValueError: a field is missing or damaged.
        """
        return _HISTORY.validate_python({name: content[name] for name in _FIELDS})


_HISTORY = TypeAdapter(LabelHistory)
_FIELDS = ("began", "gone", "conditions")


@dataclass(frozen=True)
class Rename:
    """One label's new name.

    Attributes:
        old: its former key.
        new: the key that replaced it.
        since: label key -> since when it was known before the rename, to be restored if that is
            undone.
    """

    old: str
    new: str
    since: Mapping[str, float] = field(default_factory=dict)
