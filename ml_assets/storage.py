"""Dagster's storage on PostgreSQL: reached, stamped with its environment, and served by one daemon.

Which storage an environment has is decided in `ml_assets.environment`; how Dagster is told, in
`ml_assets.home`.
"""

import contextlib
import json
import os
import platform
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ml_assets.environment import mask_url

# Of `pg_advisory_lock`, which is one namespace per database: "ml_assets" in ASCII, cut to 62 bits.
_LOCK = int.from_bytes(b"mlassets", "big") >> 2
_WATCH_SECONDS = 5.0
# By these the server, too, notices that the network is gone, and lets the lock of a daemon go that
# nobody can reach. `tcp_user_timeout` (since version 12) is for an answer that is under way then.
_SERVER_SIDE = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
_taken: list[Exception] = []  # why this process must not serve any longer
_STAMP = "ml_assets_environment"


class StorageError(RuntimeError):
    """Dagster's storage refuses us, or belongs to another environment."""


class StorageUnavailable(ConnectionError):
    """Dagster's storage cannot be reached for now."""


class AlreadyServed(RuntimeError):
    """Another process serves this instance's schedules, sensors and queue."""


def require_storage(url: str, owners: Sequence[str]) -> None:
    """Reach the storage, and make sure that it belongs to this environment.

    A storage without a stamp is taken over: it is new, or older than the stamps.

    Args:
        url: `postgresql://…`
        owners: The environment, and after it those that it shares its storage with.

    Raises:
        StorageUnavailable: It cannot be reached.
        StorageError: It refuses this user, or carries the stamp of another environment.
    """
    with _connected(url) as cursor:
        stamp = _stamp(cursor)
        if stamp is None:
            # Together with the check for a table that another process may have made meanwhile.
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK + 1,))
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {_STAMP} (name text NOT NULL)")
            cursor.execute(
                f"INSERT INTO {_STAMP} SELECT %s WHERE NOT EXISTS (SELECT 1 FROM {_STAMP})",  # noqa: S608
                (owners[0],),
            )
            stamp = _stamp(cursor)
    if stamp not in owners:
        raise StorageError(
            f"Dagster's storage {mask_url(url)} belongs to {stamp}, and {owners[0]} must not use "
            f"it by mistake. Give {owners[0]} one of its own (ML_ASSETS_STORAGE_URL); if it is "
            f"meant, say so in {owners[0]}.yaml: shares: [{stamp}.storage]"
        )


@dataclass(frozen=True)
class Found:
    """What lies in a storage.

    Attributes:
        owner: The environment that has stamped it; None if none has used it yet.
        holder: Who serves it by `serve_alone`, in words; None if nobody does.
        has_runs: Whether Dagster has made its tables.
        now: The server's clock.
    """

    owner: str | None
    holder: str | None
    has_runs: bool
    now: datetime


def look(url: str) -> Found:
    """What lies in a storage; changes nothing.

    Raises:
        StorageUnavailable, StorageError: The storage cannot be asked.
    """
    with _connected(url) as cursor:
        cursor.execute("SELECT to_regclass('runs') IS NOT NULL, clock_timestamp()")
        has_runs, now = cursor.fetchone()
        return Found(_stamp(cursor), _holder(cursor), has_runs, now)


def _stamp(cursor: Any) -> str | None:
    cursor.execute("SELECT to_regclass(%s)", (_STAMP,))
    if cursor.fetchone()[0] is None:
        return None
    cursor.execute(f"SELECT name FROM {_STAMP} LIMIT 1")  # noqa: S608
    row = cursor.fetchone()
    return row[0] if row else None


def serve_alone(url: str) -> "Watch":
    """Let this process be the only one to serve the instance, for as long as it lives.

    The lock is PostgreSQL's own (`pg_try_advisory_lock`), so that it ends with the process, and
    holds between machines. When the server restarts, the lock is taken again; if another process
    was faster, this one is told to stop (SIGTERM), for two daemons would both start the runs of
    each schedule; `require_lock` says so at its end.

    Raises:
        AlreadyServed: Another process does.
        StorageUnavailable, StorageError: The storage cannot be asked.
    """
    connection = _locked(url)
    watch = Watch(url, connection)
    threading.Thread(target=watch.run, name="sole daemon", daemon=True).start()
    return watch


def require_lock() -> None:
    """Tell, at the end of a process that served, whether it ended because it lost the lock.

    Raises:
        AlreadyServed: Another process has it.
        StorageError: The storage refuses us.
    """
    if _taken:
        raise _taken[0]


class Watch:
    """Keeps the lock of `serve_alone`: the connection that holds it, and the thread that looks."""

    def __init__(self, url: str, connection: Any) -> None:
        self._url, self._connection = url, connection
        self._ended = threading.Event()

    def run(self) -> None:
        """Look after the lock until `end`."""
        while not self._ended.wait(_WATCH_SECONDS):
            with contextlib.suppress(StorageUnavailable):
                if self._holds():
                    continue
                try:
                    self._connection = _locked(self._url)
                except (AlreadyServed, StorageError) as error:
                    _taken.append(error)
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

    def end(self) -> None:
        """Let go of the lock."""
        self._ended.set()
        self._connection.close()

    def _holds(self) -> bool:
        import psycopg2

        try:
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error:
            return False
        return True


def _locked(url: str) -> Any:
    import psycopg2

    connection = _connect(url, f"ml-assets daemon on {platform.node()}, process {os.getpid()}")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config(name, %s::json ->> name, false) FROM pg_settings "
                "WHERE name IN (SELECT json_object_keys(%s::json))",
                (json.dumps(_SERVER_SIDE),) * 2,
            )
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,))
            if cursor.fetchone()[0]:
                return connection
            other = _holder(cursor) or "a process that has just ended; try again"
    except psycopg2.Error as error:
        connection.close()
        raise StorageUnavailable(_lost(url, error)) from None
    connection.close()
    raise AlreadyServed(
        f"another daemon already serves the instance in {mask_url(url)}: {other}. Two would both "
        "start the runs of each schedule. Stop that one first, or leave it to it."
    )


def _holder(cursor: Any) -> str | None:
    cursor.execute(
        "SELECT application_name, coalesce(host(client_addr), 'local'), backend_start "
        "FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted "
        "AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND objsubid = 1 AND (classid::bigint << 32) + objid::bigint = %s",
        (_LOCK,),
    )
    row = cursor.fetchone()
    return f"{row[0]} ({row[1]}), since {row[2]:%Y-%m-%d %H:%M}" if row else None


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Any]:
    import psycopg2

    connection = _connect(url, "ml_assets")
    try:
        with connection, connection.cursor() as cursor:
            yield cursor
    except psycopg2.OperationalError as error:
        raise StorageUnavailable(_lost(url, error)) from None
    except psycopg2.Error as error:
        raise StorageError(
            f"Dagster's storage {mask_url(url)} refuses: {str(error).strip()}. The user of "
            "ML_ASSETS_STORAGE_URL needs to own its database, or a schema in it."
        ) from None
    finally:
        connection.close()


def _connect(url: str, name: str) -> Any:
    import psycopg2

    try:
        return psycopg2.connect(
            url,
            connect_timeout=10,
            application_name=name[:63],
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )
    except psycopg2.OperationalError as error:
        raise StorageUnavailable(_lost(url, error)) from None
    except psycopg2.ProgrammingError:  # it may quote a part of the password
        raise StorageError(
            f"Dagster's storage {mask_url(url)} is not a URL that can be read. Write it as "
            "postgresql://user:password@host:port/database, with %40 for an @ in the password "
            "(ML_ASSETS_STORAGE_URL)."
        ) from None


def _lost(url: str, error: Exception) -> str:
    return (
        f"Dagster's storage {mask_url(url)} cannot be reached: {str(error).strip()}. Check the "
        "server, and the user, password (PGPASSWORD) and database in ML_ASSETS_STORAGE_URL."
    )
