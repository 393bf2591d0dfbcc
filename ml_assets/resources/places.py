"""A folder, or a place in an object store, where other systems put files: list, copy, move, remove.

Which files are taken, when, and what is in them belongs in `ml_assets.resources.landing`. A local
folder is handled by the system's own calls, since fsspec follows symbolic links and knows neither
an atomic rename nor whether a file is still the one that was looked at.
"""

import contextlib
import hashlib
import os
import re
import shutil
import stat
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from filelock import FileLock

ARCHIVE = "archive"
REJECTED = "rejected"
_UNDER_WAY = f"{ARCHIVE}/.under_way"  # copies that are not finished
_ASIDE = ".taking"  # files about to be removed, until it is sure that they are the ones taken
_PIECE = 8 << 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_NAME = 120  # bytes; most file systems take 255, and we add to names


@dataclass(frozen=True)
class Entry:
    """A file as it was when the place was listed.

    Attributes:
        path: Where it lies below the place, with `/`.
        size: Its bytes.
        changed_at: When it last changed in any way, also in name.
        modified_at: When its content last changed, as its sender may say.
        identity: What tells that a file at this path is still this one.
        trouble: Why it cannot be taken as it is, if so.
    """

    path: str
    size: int
    changed_at: datetime
    modified_at: datetime
    identity: tuple[Any, ...]
    trouble: str = ""


@dataclass(frozen=True)
class Copy:
    """Our own copy of a file, not yet at its place.

    Attributes:
        key: Where it lies.
        sha256: Hash of its content.
        size: Its bytes.
    """

    key: str
    sha256: str
    size: int


class Changed(Exception):
    """A file changed, or went, while it was read."""


class Place(Protocol):
    """What a folder and an object store can both do; keys and paths are below the place."""

    def lock(self, seconds: float) -> contextlib.AbstractContextManager[object]:
        """Keep other processes of this machine out; `filelock.Timeout` if one is in for longer."""

    def tidy(self) -> None:
        """Clear away what a killed process left."""

    def entries(self) -> list[Entry]:
        """The files outside of the archive and the rejected ones, hidden ones left out."""

    def copy(self, entry: Entry) -> Copy:
        """Copy a file, hashing it on the way; `Changed` if it is not the listed one any more."""

    def keep(self, copy: Copy, key: str) -> None:
        """Let a copy be the file at a key, at once and whole."""

    def drop(self, copy: Copy) -> None:
        """Remove a copy that is not needed."""

    def size(self, key: str) -> int | None:
        """Size of a file; None if there is none."""

    def read(self, key: str) -> bytes:
        """A whole file."""

    def write(self, key: str, content: bytes) -> None:
        """Write a small file, at once and whole."""

    def remove(self, entry: Entry) -> None:
        """Remove a file, unless another has taken its place."""


def safe_name(path: str) -> str:
    """The last part of a path as a name that is harmless in any file system, and not too long."""
    name = path.rsplit("/", 1)[-1]
    plain = "".join(each if each.isalnum() or each in " .,-_+=@()" else "_" for each in name)
    plain = re.sub(r"^[.\- ]+", "_", plain) or "_"
    ending = plain[-20:]
    while len(plain.encode()) > _LONGEST_NAME:
        plain = plain[: -len(ending) - 1] + ending
    return plain


def shown(path: str) -> str:
    """A path as it may be shown, stored and logged: without control or broken characters."""
    return "".join(
        each
        if each.isprintable() and each != "\\"
        else each.encode("unicode_escape", "surrogatepass").decode()
        for each in path
    )


class Folder:
    """A local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def lock(self, seconds: float) -> contextlib.AbstractContextManager[object]:  # noqa: D102
        self.root.mkdir(parents=True, exist_ok=True)
        for name in (ARCHIVE, REJECTED, _UNDER_WAY, _ASIDE):
            if (self.root / name).is_symlink():
                raise PermissionError(f"{self.root / name} is a symbolic link; put a folder there")
        return FileLock(self.root / ".landing.lock").acquire(timeout=seconds)

    def tidy(self) -> None:  # noqa: D102
        shutil.rmtree(self.root / _UNDER_WAY, ignore_errors=True)
        aside = self.root / _ASIDE
        for file in sorted(aside.rglob("*")):
            if not file.is_dir():
                _put_back(file, self.root / file.relative_to(aside))
        shutil.rmtree(aside, ignore_errors=True)

    def entries(self) -> list[Entry]:  # noqa: D102
        found: list[Entry] = []
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                inside = list(os.scandir(self.root / folder))
            except PermissionError as error:
                if not folder:
                    raise
                found.append(_closed(folder.rstrip("/"), f"cannot be opened: {error.strerror}"))
                continue
            except FileNotFoundError:
                continue
            for each in inside:
                path = folder + each.name
                if each.name.startswith(".") or path in (ARCHIVE, REJECTED):
                    continue
                if each.is_dir(follow_symlinks=False):
                    folders.append(f"{path}/")
                else:
                    with contextlib.suppress(FileNotFoundError):
                        found.append(_local_entry(path, each.stat(follow_symlinks=False)))
        return found

    def copy(self, entry: Entry) -> Copy:  # noqa: D102
        target = self.root / _UNDER_WAY / uuid4().hex
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        source = self._open(entry)
        with source, target.open("wb") as copy:
            while piece := source.read(_PIECE):
                digest.update(piece)
                copy.write(piece)
                size += len(piece)
            same = _local_entry(entry.path, os.fstat(source.fileno())) == entry
            copy.flush()
            os.fsync(copy.fileno())  # the sender's own file goes; ours must outlast a power cut
        if not same or not self._is(entry):
            target.unlink()
            raise Changed
        return Copy(str(target.relative_to(self.root)), digest.hexdigest(), size)

    def keep(self, copy: Copy, key: str) -> None:  # noqa: D102
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.root / copy.key).replace(target)
        for folder in (target.parent, target.parent.parent):
            _sync(folder)

    def drop(self, copy: Copy) -> None:  # noqa: D102
        (self.root / copy.key).unlink(missing_ok=True)

    def size(self, key: str) -> int | None:  # noqa: D102
        try:
            return (self.root / key).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, key: str) -> bytes:  # noqa: D102
        return (self.root / key).read_bytes()

    def write(self, key: str, content: bytes) -> None:  # noqa: D102
        target = self.root / key
        under_way = self.root / _UNDER_WAY / uuid4().hex
        for file in (target, under_way):
            file.parent.mkdir(parents=True, exist_ok=True)
        under_way.write_bytes(content)
        under_way.replace(target)

    def remove(self, entry: Entry) -> None:  # noqa: D102
        # Between a look and a removal the sender may put a new file there. So it is moved out of
        # the way first, and looked at then.
        source, aside = self.root / entry.path, self.root / _ASIDE / entry.path
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            source.rename(aside)
        except FileNotFoundError:
            return
        # A rename changes the time of change, so that cannot be compared.
        if _local_entry(entry.path, aside.lstat()).identity[:3] == entry.identity[:3]:
            aside.unlink()
        else:
            _put_back(aside, source)

    def _open(self, entry: Entry) -> Any:
        try:
            # Never through a link, and never waiting at a pipe, whatever lies there by now.
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            return os.fdopen(os.open(self.root / entry.path, flags), "rb", buffering=0)
        except PermissionError:
            raise
        except OSError:
            raise Changed from None

    def _is(self, entry: Entry) -> bool:
        try:
            return _local_entry(entry.path, (self.root / entry.path).lstat()) == entry
        except FileNotFoundError:
            return False


class Store:
    """A place that fsspec reaches: an object store, or memory.

    Objects there appear whole or not at all. There is no way to remove one only if it is still the
    same, so it is looked at right before.
    """

    def __init__(self, url: str, storage_options: dict[str, str]) -> None:
        import fsspec

        self.fs, self.root = fsspec.core.url_to_fs(url, **storage_options)
        self.url = url

    def lock(self, seconds: float) -> contextlib.AbstractContextManager[object]:  # noqa: D102
        user = os.getuid() if hasattr(os, "getuid") else "all"
        folder = Path(tempfile.gettempdir()) / f"ml_assets-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if hasattr(os, "getuid") and folder.lstat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user")
        name = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        return FileLock(folder / f"landing-{name}.lock").acquire(timeout=seconds)

    def tidy(self) -> None:  # noqa: D102
        if self.fs.exists(self._at(_UNDER_WAY)):
            self.fs.rm(self._at(_UNDER_WAY), recursive=True)

    def entries(self) -> list[Entry]:  # noqa: D102
        found: list[Entry] = []
        folders = [self.root]
        self.fs.invalidate_cache()
        while folders:
            folder = folders.pop()
            try:
                inside = self.fs.ls(folder, detail=True)
            except FileNotFoundError:
                continue
            for each in inside:
                path = each["name"].removeprefix(self.root).strip("/")
                name = path.rsplit("/", 1)[-1]
                if not path or name.startswith(".") or each["name"].rstrip("/") == folder:
                    continue
                if each["type"] != "directory":
                    found.append(_remote_entry(path, each))
                elif path not in (ARCHIVE, REJECTED):
                    folders.append(each["name"].rstrip("/"))
        return found

    def copy(self, entry: Entry) -> Copy:  # noqa: D102
        key = f"{_UNDER_WAY}/{uuid4().hex}"
        self._parents(key)
        digest, size = hashlib.sha256(), 0
        try:
            with (
                self.fs.open(self._at(entry.path), "rb") as source,
                self.fs.open(self._at(key), "wb") as copy,
            ):
                while piece := source.read(_PIECE):
                    digest.update(piece)
                    copy.write(piece)
                    size += len(piece)
        except FileNotFoundError:
            raise Changed from None
        made = Copy(key, digest.hexdigest(), size)
        if not self._is(entry):
            self.drop(made)
            raise Changed
        return made

    def keep(self, copy: Copy, key: str) -> None:  # noqa: D102
        self._parents(key)
        self.fs.mv(self._at(copy.key), self._at(key))

    def drop(self, copy: Copy) -> None:  # noqa: D102
        self.fs.rm(self._at(copy.key))

    def size(self, key: str) -> int | None:  # noqa: D102
        try:
            return int(self.fs.info(self._at(key))["size"])
        except FileNotFoundError:
            return None

    def read(self, key: str) -> bytes:  # noqa: D102
        content: bytes = self.fs.cat_file(self._at(key))
        return content

    def write(self, key: str, content: bytes) -> None:  # noqa: D102
        self._parents(key)
        self.fs.pipe_file(self._at(key), content)

    def remove(self, entry: Entry) -> None:  # noqa: D102
        if self._is(entry):
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm(self._at(entry.path))

    def _at(self, key: str) -> str:
        return f"{self.root.rstrip('/')}/{key}"

    def _parents(self, key: str) -> None:
        self.fs.makedirs(self._at(key).rsplit("/", 1)[0], exist_ok=True)

    def _is(self, entry: Entry) -> bool:
        self.fs.invalidate_cache()
        try:
            return _remote_entry(entry.path, self.fs.info(self._at(entry.path))) == entry
        except FileNotFoundError:
            return False


def open_place(url: str, storage_options: dict[str, str]) -> Place:
    """The place that a URL or the path of a folder names."""
    if url.startswith("file://"):
        return Folder(Path(url.removeprefix("file://")))
    return Store(url, storage_options) if "://" in url else Folder(Path(url))


def _local_entry(path: str, found: os.stat_result) -> Entry:
    if stat.S_ISLNK(found.st_mode):
        trouble = "a symbolic link; put the file itself here"
    else:
        trouble = "" if stat.S_ISREG(found.st_mode) else "no regular file"
    return Entry(
        path,
        found.st_size,
        _instant(max(found.st_mtime_ns, found.st_ctime_ns)),
        _instant(found.st_mtime_ns),
        (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns),
        trouble,
    )


def _remote_entry(path: str, found: dict[str, Any]) -> Entry:
    names = ("LastModified", "last_modified", "updated", "mtime", "created")
    at = next((found[name] for name in names if found.get(name) is not None), _EPOCH)
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    elif isinstance(at, int | float):
        # To the nearest microsecond, so that it is the same instant however a listing tells it.
        at = datetime.fromtimestamp(at, UTC)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    size = int(found.get("size") or 0)
    return Entry(path, size, at, at, (size, at, found.get("ETag") or found.get("etag")))


def _closed(path: str, trouble: str) -> Entry:
    return Entry(path, 0, _EPOCH, _EPOCH, (), trouble)


def _instant(nanoseconds: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return _EPOCH


def _put_back(aside: Path, path: Path) -> None:
    """Put a file back, unless a newer one is there already: then that has replaced it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(aside, path, follow_symlinks=False)  # unlike a rename, never over another
        aside.unlink()
    except FileExistsError:
        aside.unlink()
    except OSError:  # a file system without hard links
        aside.rename(path)


def _sync(folder: Path) -> None:
    """Let a rename outlast a power cut, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
