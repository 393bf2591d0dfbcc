"""One writer at a time for the tables of a use case, among the processes of one machine.

A single commit needs no lock: the tables' own log takes care of it. It is for work that reads and
then writes, or that makes several commits, and that another process must not come between.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from ml_assets.resources.lake import LakeError


@contextmanager
def tables_lock(home: Path, use_case: str) -> Iterator[None]:
    """Hold the tables of a use case; wait while another process or thread does.

    A thread that holds it may take it again. It ends with its process, however that ends.

    Args:
        home: The environment's own folder.
        use_case: Name of the use case.

    Raises:
        LakeError: The folder is not writable.
    """
    file = home / f"{use_case}_tables.lock"
    try:
        home.mkdir(parents=True, exist_ok=True)
        # One object for the whole process, so that a lock within a lock counts as the same.
        lock = FileLock(file, is_singleton=True)
        lock.acquire()
    except OSError as error:
        raise LakeError(
            f"the tables of {use_case} cannot be written: {file} cannot be locked: {error}. Check "
            f"that {home} has room and that this user may write there, or use --home."
        ) from error
    try:
        yield
    finally:
        lock.release()
