from collections.abc import Iterator

import pytest

from ml_assets_tests.postgres import NoPostgres, Postgres, running_postgres, unused_port


@pytest.fixture
def free_port() -> int:
    return unused_port()


def _postgres() -> Iterator[Postgres]:
    try:
        with running_postgres() as server:
            yield server
    except NoPostgres as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    yield from _postgres()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server for one test alone, which may stop it."""
    yield from _postgres()
