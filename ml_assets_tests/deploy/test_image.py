"""The lines of the Dockerfile, run in a clean folder: what they leave works as nobody."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.build import BuildFailed, Stage, build, environ


@pytest.fixture(scope="module")
def image() -> Iterator[Stage]:
    # Not tmp_path: its folders are closed to the user that the image's programs run as.
    folder = Path(tempfile.mkdtemp(prefix="ml_assets_image_"))
    folder.chmod(0o755)
    try:
        stages = build(folder)
        shutil.rmtree(stages["build"].root)  # nothing may need it any more
        yield stages["run"]
    finally:
        shutil.rmtree(folder)


def in_image(stage: Stage, *command: str) -> subprocess.CompletedProcess[str]:
    # On a machine whose Python lies in root's own folder, nobody else can run it.
    reachable = not Path(sys.base_prefix).is_relative_to("/root") or _others_enter(Path("/root"))
    user = "nobody" if os.geteuid() == 0 and reachable else None
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o777)
        own = {"ML_ASSETS_ENV": "dev", "ML_ASSETS_HOME": f"{home}/ml_assets", "HOME": home}
        path = {"PATH": f"{stage.root}/opt/venv/bin:/usr/bin:/bin"}
        return subprocess.run(
            command,
            cwd=stage.folder,
            env={**environ(stage), **path, **own},
            capture_output=True,
            text=True,
            check=False,
            user=user,
        )


def _others_enter(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)


@pytest.mark.slow
def test_the_image_starts_what_it_is_for_as_a_user_without_rights(image: Stage) -> None:
    for command in (
        ["ml-assets", "--help"],
        ["ml-assets", "config", "--env", "prod"],
        ["ml-assets", "code-server", "--help"],
        ["dagster-webserver", "--version"],
        ["mlflow", "--version"],
        ["python", "-c", "import ml_assets.definitions, dagster_postgres, psycopg2"],
        ["python", "-c", "from ml_assets.definitions import defs; defs.resolve_all_job_defs()"],
    ):
        done = in_image(image, *command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
def test_the_image_holds_the_package_and_no_tools_of_developers(image: Stage) -> None:
    packages = next((image.root / "opt/venv/lib").glob("python*/site-packages"))
    names = {folder.name.partition("-")[0] for folder in packages.glob("*.dist-info")}

    assert {"ml_assets", "dagster_webserver", "mlflow"} <= names
    assert not {"pytest", "ruff", "uv", "pip", "playwright", "mypy"} & names
    assert not list(packages.glob("ml_assets_tests")), "tests stay at home"
    assert (packages / "ml_assets" / "config" / "prod.yaml").is_file()
    assert (image.folder / "deploy" / "workspace.yaml").is_file()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("FROM x AS one\nRUN exit 3\n", "RUN exit 3"),
        ("FROM x AS one\nADD a b\n", "ADD a b: not understood"),
        ("RUN true\n", "before FROM"),
    ],
)
def test_a_line_that_fails_is_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "Dockerfile").write_text(text)

    with pytest.raises(BuildFailed, match=told):
        build(tmp_path / "image", tmp_path / "Dockerfile", tmp_path)
