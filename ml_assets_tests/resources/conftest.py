import pytest

from ml_assets_tests.postgres import unused_port


@pytest.fixture
def free_port() -> int:
    return unused_port()
