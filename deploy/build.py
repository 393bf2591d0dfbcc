"""Runs the lines of `deploy/Dockerfile` in a folder, without a container engine.

For machines that have none: `python -m deploy.build FOLDER` leaves in FOLDER what would be in the
image. Each stage is a folder of its own; absolute paths of the image become paths in it, and the
base image's Python is this machine's. Left out, since they need an image: users and the folders
that belong to them. Settings that keep a package cache out of the image are left out too.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
DOCKERFILE = Path(__file__).with_name("Dockerfile")

_PATHS = re.compile(r"(?<![\w.])/(opt|src|app)\b")
_ONLY_IN_AN_IMAGE = ("groupadd ",)
_NOT_HERE = ("UV_NO_CACHE", "HOME")


class BuildFailed(RuntimeError):
    """A line of the Dockerfile fails, or is one that this does not understand."""


@dataclass
class Stage:
    """A stage of the Dockerfile under way: a folder, and what WORKDIR and ENV said."""

    root: Path
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)


def lines(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile: name and rest."""
    kept = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(kept))
    return [
        (name, rest.strip()) for name, _, rest in (e.partition(" ") for e in joined.split("\n"))
    ]


def build(into: Path, dockerfile: Path = DOCKERFILE, context: Path = PROJECT) -> dict[str, Stage]:
    """Run the stages of a Dockerfile below a folder.

    Returns:
        The stages by name.

    Raises:
        BuildFailed: Naming the line.
    """
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for name, rest in lines(dockerfile.read_text(encoding="utf-8")):
        if name == "ARG":
            continue
        if name == "FROM":
            _, _, title = rest.partition(" AS ")
            root = into / title
            root.mkdir(parents=True)
            stage = stages[title] = Stage(root, root)
        elif stage is None:
            raise BuildFailed(f"{name} {rest}: before FROM")
        elif name == "WORKDIR":
            stage.folder = Path(_here(rest, stage))
            stage.folder.mkdir(parents=True, exist_ok=True)
        elif name == "ENV":
            pairs = (pair.partition("=") for pair in shlex.split(_here(rest, stage)))
            stage.environ |= {key: value for key, _, value in pairs if key not in _NOT_HERE}
        elif name == "COPY":
            _copy(rest, stage, stages, context)
        elif name == "RUN":
            _run(rest, stage)
        elif name not in ("USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "CMD"):
            raise BuildFailed(f"{name} {rest}: not understood")
    return stages


def environ(stage: Stage) -> Mapping[str, str]:
    """The variables that a stage's commands get: few of this process, and the stage's own."""
    path = f"{Path(sys.base_prefix) / 'bin'}{os.pathsep}/usr/local/bin:/usr/bin:/bin"
    kept = {
        "HOME",
        "UV_CACHE_DIR",
        "PIP_CACHE_DIR",
        "PIP_INDEX_URL",
        "UV_INDEX_URL",
        "SSL_CERT_FILE",
    }
    found = {key: os.environ[key] for key in kept & set(os.environ)}
    # Proxies and mirrors of this machine, as `docker build` takes its own.
    found |= {k: v for k, v in os.environ.items() if k.lower().endswith(("_proxy", "_index"))}
    own = {key: value.replace("$PATH", path) for key, value in stage.environ.items()}
    return {**found, "PATH": path, **own}


def command(dockerfile: Path = DOCKERFILE) -> list[str]:
    """What the image starts when it is told nothing else."""
    found: list[str] = json.loads(dict(lines(dockerfile.read_text(encoding="utf-8")))["CMD"])
    return found


def _here(text: str, stage: Stage) -> str:
    return _PATHS.sub(rf"{stage.root}/\1", text)


def _copy(rest: str, stage: Stage, stages: Mapping[str, Stage], context: Path) -> None:
    words = shlex.split(rest)
    source = context
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")].root
    *names, target = words
    for name in names:
        start = source / name.lstrip("/")
        end = Path(_here(target, stage)) if target.startswith("/") else stage.folder / target
        if target.endswith("/"):
            end = end / start.name
        end.parent.mkdir(parents=True, exist_ok=True)
        if start.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(start, end, symlinks=True, ignore=ignored)
            _call_home(end, source, stage.root)
        else:
            shutil.copy(start, end)


def _call_home(folder: Path, before: Path, after: Path) -> None:
    """Let scripts find their interpreter where they are now; in an image it stays where it was."""
    for script in folder.glob("bin/*"):
        if script.is_symlink() or not (content := script.read_bytes()).startswith(b"#!"):
            continue
        script.write_bytes(content.replace(str(before).encode(), str(after).encode()))


def _run(rest: str, stage: Stage) -> None:
    if rest.startswith(_ONLY_IN_AN_IMAGE):
        return
    done = subprocess.run(  # noqa: S603
        ["/bin/sh", "-ec", _here(rest, stage)],
        cwd=stage.folder,
        env=dict(environ(stage)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BuildFailed(f"RUN {rest}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    for title, made in build(Path(sys.argv[1]).resolve()).items():
        print(f"{title}: {made.root}")
