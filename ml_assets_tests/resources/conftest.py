import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest


@dataclass(frozen=True)
class Postgres:
    folder: Path
    port: int

    def url(self, database: str, *, password: str = "right") -> str:
        return f"postgresql://tester:{password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        import psycopg

        name = f"test_{uuid4().hex}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    return _free_port()


def _running_postgres() -> Iterator[Postgres]:
    if absent := [name for name in ("initdb", "pg_ctl") if not shutil.which(name)]:
        pytest.skip(f"PostgreSQL's {' and '.join(absent)} not on the PATH")
    # Not tmp_path: its folders are closed to the user that the server runs as.
    with tempfile.TemporaryDirectory(prefix="ml_assets_postgres_") as folder:
        postgres = Postgres(Path(folder), _free_port())
        postgres.create()
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    yield from _running_postgres()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server for one test alone, which may stop it."""
    yield from _running_postgres()
