"""A PostgreSQL server of one's own, on loopback: for the tests, and for `benchmarks/`."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4


class NoPostgres(RuntimeError):
    """PostgreSQL's programs are not on this machine."""


@dataclass(frozen=True)
class Postgres:
    folder: Path
    port: int

    def url(self, database: str, *, password: str = "right") -> str:
        return f"postgresql://tester:{password}@127.0.0.1:{self.port}/{database}"

    def new_database(self, options: str = "") -> str:
        name = f"test_{uuid4().hex}"
        run_sql(self.url("postgres"), f"CREATE DATABASE {name} {options}")
        return name

    def start(self) -> None:
        # A session far from the days' own time zone: nothing may depend on the server's settings.
        options = (
            f"-h 127.0.0.1 -p {self.port} -k {self.folder} "
            "-c timezone=Asia/Tokyo -c datestyle=German -c fsync=off"
        )
        log = self.folder / "log"
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", str(log), "-o", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", self._data)

    def create(self) -> None:
        password = self.folder / "password"
        password.write_text("right")
        if os.geteuid() == 0:
            shutil.chown(self.folder, "nobody")
            shutil.chown(password, "nobody")
        auth = ("-A", "scram-sha-256", "--pwfile", str(password))
        self._run("initdb", "-D", self._data, "-U", "tester", "-E", "UTF8", "--locale=C", *auth)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        # PostgreSQL refuses to run as root.
        prefix = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [*prefix, program, *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{program} {arguments[0]} failed in {self.folder}"


def run_sql(url: str, *statements: str) -> list[dict[str, Any]]:
    """Run statements, each on its own at once; returns the last one's rows."""
    import adbc_driver_postgresql.dbapi as driver

    with driver.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetch_arrow_table().to_pylist() if cursor.description else []


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A new, empty server; it is gone afterwards.

    Raises:
        NoPostgres: `initdb` or `pg_ctl` is not on the PATH.
    """
    if absent := [name for name in ("initdb", "pg_ctl") if not shutil.which(name)]:
        raise NoPostgres(f"PostgreSQL's {' and '.join(absent)} not on the PATH")
    # Not tmp_path: its folders are closed to the user that the server runs as.
    with tempfile.TemporaryDirectory(prefix="ml_assets_postgres_") as folder:
        postgres = Postgres(Path(folder), unused_port())
        postgres.create()
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.stop()
