"""Writes an export so that it is there as a whole, or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from backend.errors import SettingsError
from backend.storage.durability import sync

_OURS = secrets.token_hex(4)
"""In the names of drafts, so that no two processes write the same one."""


@dataclass(frozen=True)
class Target:
    """A file or a folder that is to be written.

    Attributes:
        path: where it shall be.
        is_folder: whether it is a folder, which must not be there yet; a file is replaced.
        option: of the command, which names it.
    """

    path: Path
    is_folder: bool = False
    option: str = "--output"

    @property
    def draft(self) -> Path:
        """Where it is written first: beside its place, so that it can be moved there."""
        return self.path.with_name(f".{self.path.name}.{_OURS}.part")

    def leftovers(self) -> list[Path]:
        """Drafts of processes that were ended; inside `reserved`, where no other one writes."""
        theirs = re.compile(rf"\.{re.escape(self.path.name)}\.([0-9a-f]{{{len(_OURS)}}}\.)?part")
        return [path for path in self.draft.parent.iterdir() if theirs.fullmatch(path.name)]

    @property
    def former(self) -> Path:
        """Where the file that was there is kept until all that is written has its name."""
        return self.path.with_name(f".{self.path.name}.old")

    def require(self) -> None:
        """Refuse, before any work is done, what cannot be written.

        Raises:
            SettingsError: it is there, or its folder is not, or may not be written to.
        """
        folder = self.path.absolute().parent
        # Not by way of Path, to which a name that is too long is an error.
        if not os.path.isdir(folder):  # noqa: PTH112
            raise SettingsError(f"There is no folder {folder}.", "Make it first.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SettingsError(
                f"The folder {folder} cannot be written to.",
                f"Correct its permissions, or give another one with {self.option}.",
            )
        if not self.is_folder and os.path.isdir(self.path):  # noqa: PTH112
            raise SettingsError(
                f"{self.path} is a folder.", f"Give the name of a file with {self.option}."
            )
        if self.is_folder and os.path.lexists(self.path) and not _is_empty(self.path):
            raise SettingsError(
                f"{self.path} is there already, and is not written over.",
                "Move or delete it, or give another name with --output.",
            )


@contextmanager
def reserved(targets: Sequence[Target]) -> Iterator[None]:
    """Refuse, before any work is done, what cannot be written, and keep other exports from it.

    Raises:
        SettingsError: it cannot be written, or another export writes it.
    """
    with ExitStack() as stack:
        for target in targets:
            target.require()
            stack.enter_context(_locked(target))
            # Another export may have ended in between.
            target.require()
        yield


@contextmanager
def _locked(target: Target) -> Iterator[None]:
    # Beside its place, where every process finds it that can write there.
    path = target.path.with_name(f".{target.path.name}.lock")
    lock = FileLock(path)
    with _told([target]):
        # To the lock, some of what is wrong with a folder looks like another holder.
        path.touch()
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise SettingsError(
                f"Another export writes {target.path}.",
                f"Wait until it has ended, or give another name with {target.option}.",
            ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        lock.release()


@contextmanager
def drafts(targets: Sequence[Target]) -> Iterator[None]:
    """Write the drafts of these inside; when all are whole, they get their names, in order.

    To be used inside `reserved`. After an error inside, none of them is there, or is changed.

    Raises:
        SettingsError: the disk is full, or something else keeps them from being written.
    """
    try:
        with _told(targets):
            for target in targets:
                for path in (*target.leftovers(), target.former):
                    _erase(path)
                if target.is_folder:
                    target.draft.mkdir()
            yield
            undo: list[Callable[[], None]] = []
            try:
                for target in targets:
                    _publish(target, undo)
            except OSError:
                for step in reversed(undo):
                    with suppress(OSError):
                        step()
                raise
            for target in targets:
                with suppress(OSError):
                    _erase(target.former)
    finally:
        for target in targets:
            with suppress(OSError):
                _erase(target.draft)


@contextmanager
def _told(targets: Sequence[Target]) -> Iterator[None]:
    """Say of an error of the system what could not be written."""
    try:
        yield
    except OSError as error:
        named = ", ".join(str(target.path) for target in targets)
        raise SettingsError(
            f"{named} cannot be written: {_reason(error)}.",
            "Make room there, correct the permissions, or give another name with --output.",
        ) from error


def _publish(target: Target, undo: list[Callable[[], None]]) -> None:
    if target.is_folder:
        target.draft.rename(target.path)
        undo.append(lambda: shutil.rmtree(target.path, ignore_errors=True))
    else:
        sync(str(target.draft))
        is_there = os.path.lexists(target.path)
        if is_there:
            _keep(target)
        undo.append(lambda: _restore(target, is_there))
        target.draft.replace(target.path)


def _keep(target: Target) -> None:
    """Give what is there a second name, without taking the first one away."""
    try:
        target.former.hardlink_to(target.path)
    except OSError:
        # Not all file systems have links.
        shutil.copy2(target.path, target.former)


def _restore(target: Target, is_there: bool) -> None:
    """Bring back what was there before; nothing, if nothing was."""
    if is_there:
        target.former.replace(target.path)
        # To replace a file by another name of it does nothing.
        target.former.unlink(missing_ok=True)
    else:
        target.path.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    """Why, in the operating system's words; Arrow puts others around them."""
    return os.strerror(error.errno) if error.errno else str(error)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _erase(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
