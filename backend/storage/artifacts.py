"""Files of the store that are no tables (statistics, heads, pointers), on a disk or in a bucket."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow.fs

from backend.errors import StoreError
from backend.messages.message import Message
from backend.storage.durability import sync

DRAFT = re.compile(r".*\.(json|safetensors)\.[0-9a-f]{32}")
"""A file before it is given its name."""
DAMAGED_FIX = Message(
    "Restore it from a backup. Without one, delete it; docs/architecture.md says what each folder "
    "holds."
)


class DamagedArtifactError(StoreError):
    """A file of the store does not hold a JSON object."""


class Artifacts:
    """JSON files below one URI. Thread-safe.

    Args:
        uri: a directory (created if missing) or a URI that Arrow knows, e.g. ``s3://``.

    Raises:
        StoreError: the location cannot be opened.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock = threading.Lock()
        with store_errors(uri, "opened"):
            if "://" in uri:
                self._files, self._root = pyarrow.fs.FileSystem.from_uri(uri)
            else:
                # Embeddings can be searched by words, and files of runs hold task data.
                Path(uri).mkdir(mode=0o700, parents=True, exist_ok=True)
                self._files, self._root = pyarrow.fs.LocalFileSystem(), uri

    def read(self, name: str) -> dict[str, Any] | None:
        """The JSON artifact of this name; None if there is none.

        Raises:
            DamagedArtifactError: the file does not hold a JSON object.
            StoreError: it cannot be read.
        """
        data = self.read_bytes(f"{name}.json")
        if data is None:
            return None
        try:
            content = json.loads(data)
        except ValueError as error:
            raise self.damaged(name, str(error)) from error
        if not isinstance(content, dict):
            raise self.damaged(name, Message("it holds no JSON object"))
        return content

    def read_bytes(self, file: str, most: int | None = None) -> bytes | None:
        """What a file of the store holds, by its whole name; None if there is none.

        Args:
            file: its name.
            most: only so many bytes from its beginning; None: all.

        Raises:
            StoreError: it cannot be read.
        """
        path = f"{self._root}/{file}"
        with store_errors(self.uri, "read"):
            if self._files.get_file_info(path).type == pyarrow.fs.FileType.NotFound:
                return None
            with self._files.open_input_stream(path) as stream:
                data: bytes = stream.read(most)
        return data

    def write_bytes(self, file: str, data: bytes) -> None:
        """Write a file that nobody overwrites, by its whole name: it exists as a whole or not.

        Raises:
            StoreError: the file cannot be written.
        """
        path = f"{self._root}/{file}"
        with self._lock, store_errors(self.uri, "written"):
            draft = self._drafted(path, data)
            self._files.move(draft, path)
            self._sync(path.rsplit("/", 1)[0])

    def damaged(self, name: str, why: str, fix: str = DAMAGED_FIX) -> DamagedArtifactError:
        """The error for an artifact that does not hold what it should.

        Args:
            name: of the artifact; with its ending where it is no JSON.
            why: what is wrong with it.
            fix: what a person can do.
        """
        path = f"{self._root}/{name}" if name.endswith(".safetensors") else self._path(name)
        message = Message("The file {path} of the store is damaged: {why}.", path=path, why=why)
        return DamagedArtifactError(message, fix)

    def write(self, name: str, content: dict[str, Any], replace: bool = False) -> dict[str, Any]:
        """Write a JSON artifact. One that exists already is kept unless ``replace`` is set.

        Args:
            name: path below the store, without ``.json``.
            content: JSON-serialisable.
            replace: overwrite an existing artifact.

        Returns:
            The content that is in the store now.

        Raises:
            StoreError: the file cannot be written.
        """
        path = self._path(name)
        with self._lock:
            existing = None if replace else self.read(name)
            if existing is not None:
                return existing
            with store_errors(self.uri, "written"):
                draft = self._drafted(path, json.dumps(content).encode())
                if replace or not self._publish(draft, path):
                    self._files.move(draft, path)
                self._sync(path.rsplit("/", 1)[0])
            return content if replace else self.read(name) or content

    def stamp(self, name: str) -> str:
        """Modification time and size of the artifact, to detect a change; empty if there is none.

        Raises:
            StoreError: the store cannot be read.
        """
        with store_errors(self.uri, "read"):
            info = self._files.get_file_info(self._path(name))
        if info.type == pyarrow.fs.FileType.NotFound:
            return ""
        return f"{info.mtime_ns} {info.size}"

    def names(self, folder: str) -> list[str]:
        """Names of the artifacts directly below ``folder``, in no order.

        Raises:
            StoreError: the store cannot be read.
        """
        names = [entry.base_name for entry in self._entries(folder)]
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def folder_names(self, folder: str) -> list[str]:
        """Names of the folders directly below ``folder``, in no order.

        Raises:
            StoreError: the store cannot be read.
        """
        directory = pyarrow.fs.FileType.Directory
        return [entry.base_name for entry in self._entries(folder) if entry.type == directory]

    def content(self, folder: str) -> list[str]:
        """Names of the files and folders directly below ``folder``, in no order.

        Raises:
            StoreError: the store cannot be read.
        """
        return [entry.base_name for entry in self._entries(folder)]

    def files(self, folder: str) -> list[str]:
        """Paths, within the store, of all files below ``folder``, in no order.

        Raises:
            StoreError: the store cannot be read.
        """
        return [
            entry.path.removeprefix(f"{self._root}/")
            for entry in self._entries(folder, recursive=True)
            if entry.type == pyarrow.fs.FileType.File
        ]

    def move(self, source: str, target: str) -> None:
        """Move a file or a folder within the store; both are whole names, with any extension.

        In a bucket the files of a folder are moved one by one: an interrupted move is continued by
        the same call.

        Raises:
            StoreError: the target exists, or the store cannot be written.
        """
        is_local = isinstance(self._files, pyarrow.fs.LocalFileSystem)
        begin, end = f"{self._root}/{source}", f"{self._root}/{target}"
        with store_errors(self.uri, "written"):
            info = self._files.get_file_info(begin)
            if is_local or info.type != pyarrow.fs.FileType.Directory:
                there = self._files.get_file_info(end).type != pyarrow.fs.FileType.NotFound
                if there:
                    raise StoreError(
                        Message(
                            "The store at {uri} holds both {source} and {target}.",
                            uri=self.uri,
                            source=source,
                            target=target,
                        ),
                        Message(
                            "Stop the processes of the older release, which wrote the first one, "
                            "and move it to another place."
                        ),
                    )
                self._files.create_dir(end.rsplit("/", 1)[0], recursive=True)
                self._files.move(begin, end)
                return
            for entry in self._files.get_file_info(pyarrow.fs.FileSelector(begin, recursive=True)):
                if entry.type == pyarrow.fs.FileType.File:
                    self._files.move(entry.path, end + entry.path.removeprefix(begin))
            self._files.delete_dir(begin)

    def modified(self, folder: str) -> float:
        """When a file, or the last file in a folder, was written, unix time; 0 if there is none.

        Raises:
            StoreError: the store cannot be read.
        """
        with store_errors(self.uri, "read"):
            info = self._files.get_file_info(f"{self._root}/{folder}")
        entries = [info] if info.type == pyarrow.fs.FileType.File else self._entries(folder)
        return max((entry.mtime_ns / 1e9 for entry in entries if entry.mtime_ns), default=0.0)

    def erase(self, folder: str, matches: Callable[[str], bool]) -> None:
        """Delete the files and folders directly below ``folder`` whose names match.

        Raises:
            StoreError: they cannot be deleted.
        """
        entries = self._entries(folder)
        with store_errors(self.uri, "written"):
            for entry in entries:
                if not matches(entry.base_name):
                    continue
                if entry.type == pyarrow.fs.FileType.Directory:
                    self._files.delete_dir(entry.path)
                else:
                    self._files.delete_file(entry.path)

    def erase_drafts(self, folder: str) -> None:
        """Delete files directly below ``folder`` that a process has died writing.

        Only for who knows that nobody writes there now.

        Raises:
            StoreError: they cannot be deleted.
        """
        self.erase(folder, lambda name: DRAFT.fullmatch(name) is not None)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}.json"

    def _entries(self, folder: str, recursive: bool = False) -> list[Any]:
        place = f"{self._root}/{folder}".rstrip("/")
        selector = pyarrow.fs.FileSelector(place, allow_not_found=True, recursive=recursive)
        with store_errors(self.uri, "read"):
            entries: list[Any] = self._files.get_file_info(selector)
            return entries

    def _drafted(self, path: str, data: bytes) -> str:
        """Write a file beside where it shall be; returns its path."""
        self._files.create_dir(path.rsplit("/", 1)[0], recursive=True)
        draft = f"{path}.{uuid4().hex}"
        with self._files.open_output_stream(draft) as stream:
            stream.write(data)
        self._sync(draft)
        return draft

    def _sync(self, path: str) -> None:
        """Wait until a file, or a folder's list of files, would outlast a power failure."""
        if isinstance(self._files, pyarrow.fs.LocalFileSystem):
            sync(path)

    def _publish(self, draft: str, path: str) -> bool:
        """Give the draft its name unless another process has just written an artifact there.

        Returns:
            Whether this was possible: it needs a local file system with hard links.
        """
        if not isinstance(self._files, pyarrow.fs.LocalFileSystem):
            return False
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        except OSError:
            return False
        self._files.delete_file(draft)
        return True


_ACTIONS = {
    "opened": Message("opened"),
    "read": Message("read"),
    "written": Message("written"),
}


@contextlib.contextmanager
def store_errors(uri: str, action: str) -> Iterator[None]:
    """Turn any error inside into a StoreError.

    Args:
        uri: of the store, for the message.
        action: what was tried: ``opened``, ``read`` or ``written``.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(
            Message(
                "The store at {uri} cannot be {action}: {error}",
                uri=uri,
                action=_ACTIONS[action],
                error=first_line(error),
            ),
            Message("Check LS_CLIP_STORE, its permissions and the free space there."),
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 300 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def safe_name(project: str) -> str:
    """A project's key as the name of a folder: at most 64 letters, digits, ``.``, ``-``, ``_``."""
    name = "".join(c if c.isalnum() or c in ".-" else "_" for c in project) or "none"
    # Label Studio's own keys are short, but a caller's may exceed what file systems allow.
    return name if len(name) <= 64 else hashlib.sha256(name.encode()).hexdigest()
