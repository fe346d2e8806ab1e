"""Former names of labels: what annotations, heads and task data of before mean today."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

SEPARATOR = " / "
"""Between the elements of a path in the key of a taxonomy's label."""


@dataclass(frozen=True)
class Renames:
    """The renames of one control's labels.

    Attributes:
        pairs: former key -> the key that replaced it, which may have been replaced in its turn.
        live: keys that the control has now: each of them means itself.
        paths: whether the labels form a tree, in which renaming a branch renames what is below it.
    """

    pairs: Mapping[str, str] = field(default_factory=dict)
    live: Collection[str] = frozenset()
    paths: bool = False

    def current(self, key: str) -> str:
        """The present key of a label; the same one if it was not renamed."""
        # A rename that leads in a circle is refused when it is made; this ends all the same.
        for _ in range(len(self.pairs)):
            following = None if key in self.live else self._next(key)
            if following is None:
                return key
            key = following
        return key

    def _next(self, key: str) -> str | None:
        if key in self.pairs:
            return self.pairs[key]
        branch, rest = key, ""
        while self.paths and SEPARATOR in branch:
            branch, _, last = branch.rpartition(SEPARATOR)
            rest = SEPARATOR + last + rest
            if branch in self.pairs:
                return self.pairs[branch] + rest
        return None
