"""Readers copy what pages show: every command and every line of Python there is run here.

A new page or command is picked up by itself. What cannot be run here is in `NOT_RUN`, with the
reason, and is at least parsed by the command that it calls.
"""

import ast
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from markdown.extensions.toc import slugify
from typer.main import get_command

from ml_assets.cli import app
from ml_assets.environment import load_environment

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"

# The pages are written as if today were this day: the tests move every date along.
TODAY_IN_DOCS = date(2026, 11, 24)

# Commands that are not run here, by a pattern, each with the reason. They are parsed all the same.
NOT_RUN = {
    r"^export PATH=": "the tests set it",
    # What follows in its block is run on the embedded stores instead.
    r"^export (ML_ASSETS|MLFLOW)_": "names a server or a store that is not here",
    r"^make demo\b": "the home of these tests is made by its command",
    r"^make\b": "installs, tests, builds or serves this very repository; CI runs them",
    r"^ml-assets (ui|daemon|code-server)\b": "a server; test_servers.py and make stack start them",
    r"^ml-assets landing\b": "needs files that landed: test_cli_landing.py runs it",
    r"^ml-assets smoke\b": "asks a running webserver; make stack has one",
    r"^(docker|helm|kubectl)\b": "needs a container engine",
    r"^\w+_PASSWORD=.* psql ": "needs a server",
    r"^(psql|createdb|pg_\w+|sudo|systemctl|curl|nginx|htpasswd|openssl)\b": "needs a server",
    r"^python benchmarks/": "takes minutes: their tables name machine and day",
    r"^MLFLOW_TRACKING_URI=|^mlflow |^serve/bin|^python -m venv serve": (
        "installs packages; test_registry.py serves a model as MLflow does"
    ),
    r"pip install nvidia-nccl": "needs a machine with several GPUs",
    r"--warehouse postgresql://": "test_demo.py runs it on a real server",
    r"--env (pre)?prod\b(?!.*config)": "needs the servers of that environment",
}
_FENCE = re.compile(
    r"^(?P<indent> *)(?P<mark>```+)(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)(?P=mark)",
    re.MULTILINE | re.DOTALL,
)
_SHELL = ("bash", "sh", "shell", "console")


@dataclass(frozen=True)
class Block:
    """A piece of code in a page."""

    page: str
    line: int
    language: str
    body: str

    def commands(self) -> list[str]:
        """The commands of a shell block, continued lines joined, comments left out."""
        text = re.sub(r"\\\n\s*", "", self.body)
        lines = [line.strip().removeprefix("$ ") for line in text.splitlines()]
        bare = [re.sub(r"\s+#\s.*$", "", line) for line in lines if not line.startswith("#")]
        return [line.removeprefix(".venv/bin/") for line in bare if line]


def pages() -> list[Path]:
    first = [REPOSITORY / "README.md", DOCS / "index.md", DOCS / "start.md"]
    return [*first, *(page for page in sorted(DOCS.rglob("*.md")) if page not in first)]


def name(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in pages():
        text = page.read_text("utf-8")
        for match in _FENCE.finditer(text):
            if match["language"] in languages:
                body = re.sub(rf"(?m)^{match['indent']}", "", match["body"])
                line = text.count("\n", 0, match.start()) + 1
                found.append(Block(name(page), line, match["language"], body))
    return found


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text("utf-8"))


def reason_not_to_run(command: str) -> str | None:
    return next((why for rule, why in NOT_RUN.items() if re.search(rule, command)), None)


def told_commands() -> Iterator[tuple[str, str]]:
    """Each command of a block, and each in the text that begins with `ml-assets` or `make`."""
    for block in blocks(*_SHELL):
        for command in block.commands():
            yield f"{block.page}:{block.line}", command
    for page in pages():
        for match in re.finditer(r"`((?:ml-assets|make|python benchmarks/)[^`\n]*)`", prose(page)):
            yield name(page), match[1]


def complaint(command: str) -> str | None:
    """What is wrong with a command as it is written; nothing if it can be parsed."""
    words = [
        word for word in shlex.split(command) if not re.match(r"[A-Za-z_]+=", word) or "--" in word
    ]
    if not words:
        return None
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text("utf-8"), re.M)
        asked = [word for word in words[1:] if "=" not in word]
        unknown = [word for word in asked if word not in targets and word != "…"]
        return f"no target {unknown[0]}" if unknown else None
    if words[0] == "ml-assets":
        return _parsed(words[1:])
    if words[0] == "python" and words[1].startswith("benchmarks/"):
        script = REPOSITORY / words[1]
        if not script.is_file():
            return f"no file {words[1]}"
        options = [word for word in words[2:] if word.startswith("-")]
        return next((f"no option {o}" for o in options if o not in script.read_text()), None)
    if words[:2] == ["python", "-m"] and words[2].startswith("ml_assets"):
        return None if importlib.util.find_spec(words[2]) else f"no module {words[2]}"
    return None


def _parsed(words: list[str]) -> str | None:
    """Whether the commands, arguments and options are there; capitals and … stand for values."""
    command: Any = get_command(app)
    while words and hasattr(command, "commands"):
        if words[0] in {"…", "--help", "-h"}:
            return None
        if words[0] == "|" or words[0] not in command.commands:
            return f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    if hasattr(command, "commands"):
        return None  # a group by its name
    known = {opt: each for each in command.params for opt in each.opts if opt.startswith("-")}
    known |= {"--help": None, "-h": None}
    unknown = [word for word in words if word.startswith("-") and word.split("=")[0] not in known]
    return f"no option {unknown[0]}" if unknown else None


def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_that_a_page_names_exists() -> None:
    wrong = [
        f"{where}: {command}: {told}"
        for where, command in told_commands()
        if (told := complaint(command.replace(" | ", " … ").replace("'", "’")))
    ]

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("ml-assets quarantine reply", "no command reply"),
        ("ml-assets status --when now", "no option --when"),
        ("make dema", "no target dema"),
        ("python benchmarks/none.py", "no file benchmarks/none.py"),
        ("python benchmarks/daily.py --no-such", "no option --no-such"),
        ("ml-assets run scoring --day D", None),
        ("ml-assets data log TABLE", None),
    ],
)
def test_a_command_that_does_not_exist_is_found(command: str, told: str | None) -> None:
    assert complaint(command) == told


def test_every_link_leads_somewhere() -> None:
    made = set(hooks().PAGES)
    wrong = []
    for page in [*pages(), REPOSITORY / "CHANGELOG.md"]:
        for target in re.findall(r"\]\((?!https?:|mailto:)<?([^)\s>]+)>?\)", prose(page)):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if file.is_relative_to(DOCS) and file.relative_to(DOCS).as_posix() in made:
                continue  # made when the site is built, which checks its anchors
            if not file.exists():
                wrong.append(f"{name(page)}: {target}: no such file")
            elif anchor and anchor not in anchors(file):
                wrong.append(f"{name(page)}: {target}: no such heading")

    assert not wrong, "\n".join(wrong)


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {slugify(re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", head), "-") for head in heads}


def test_the_page_of_symptoms_knows_every_check() -> None:
    from ml_assets.build import build_definitions

    text = (DOCS / "symptoms.md").read_text("utf-8")
    definitions = build_definitions(load_environment("dev", environ={}))
    missing = [check for check, *_ in hooks().checks(definitions) if check not in text]

    assert missing == []


def test_the_messages_among_the_symptoms_are_those_that_the_code_says() -> None:
    said = "\n".join(_texts())
    text = (DOCS / "symptoms.md").read_text("utf-8")
    rows = re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
    quoted = [quote for row in rows for quote in re.findall(r"`([^`]+ [^`]+)`", row)]
    fragments = {
        part.strip(" ;:.")
        for quote in quoted
        if not quote.startswith(("ml-assets", "make"))
        for part in quote.split("…")
        if len(part.strip(" ;:.")) > 5
    }

    assert len(fragments) > 30
    assert sorted(part for part in fragments if part not in said) == []


def _texts() -> Iterator[str]:
    """The texts in the code as one line each, whatever they are put together from."""
    for file in sorted((REPOSITORY / "ml_assets").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield " ".join(node.value.split())
            elif isinstance(node, ast.JoinedStr):
                parts = [str(getattr(part, "value", "…")) for part in node.values]
                yield "".join(p if "ast." not in p else "…" for p in parts)


def test_configuration_keys_that_pages_name_exist() -> None:
    from ml_assets.environment import Environment

    sections = {
        key: field.annotation
        for key, field in Environment.model_fields.items()
        if hasattr(field.annotation, "model_fields")
    }
    wrong = []
    for page in pages():
        for section, key in re.findall(r"`(\w+)\.(\w+)(?:: [^`]*)?`", prose(page)):
            model = sections.get(section)
            files = ("py", "sql", "md", "yaml", "db", "duckdb", "html", "txt", "json")
            if model and key not in files and key not in model.model_fields:
                wrong.append(f"{name(page)}: {section}.{key}")

    assert wrong == []


@pytest.mark.slow
def test_the_site_builds_strictly_and_asks_nothing_of_other_hosts(tmp_path: Path) -> None:
    site = tmp_path / "site"
    mkdocs = Path(sys.executable).with_name("mkdocs")
    built = subprocess.run(
        [str(mkdocs), "build", "--strict", "--site-dir", str(site)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )

    assert built.returncode == 0, built.stderr
    asked = re.compile(
        r"<(?:link|script|img|source|iframe|video|audio|embed|object)\b[^>]*?"
        r"(?:src|href|srcset|data)=[\"']?((?:https?:)?//[^\"'\s>]+)"
        r"|url\(\s*[\"']?((?:https?:)?//[^\"')]+)|@import\s+[\"']((?:https?:)?//[^\"']+)"
    )
    outside = {
        f"{file.relative_to(site)}: {next(filter(None, match.groups()))}"
        for file in site.rglob("*")
        if file.suffix in {".html", ".css", ".svg"}
        for match in asked.finditer(file.read_text("utf-8"))
    }
    assert outside == set()
    reference = (site / "reference" / "cli" / "index.html").read_text("utf-8")
    assert "ml-assets-quarantine-replay" in reference
    assert "gate.guardrails.slice_margin" in _html(site, "configuration")
    assert "every_row_accounted" in _html(site, "platform")
    assert "superseded_at" in _html(site, "tables")
    assert "ml_assets.core.gate" in _html(site, "python")
    assert not list(site.rglob("hooks.py"))


def _html(site: Path, page: str) -> str:
    return (site / "reference" / page / "index.html").read_text("utf-8")


@dataclass(frozen=True)
class Project:
    """A project's folder with a demo's home: what a reader of the pages has before them."""

    folder: Path
    pristine: Path
    today: date
    bad_day: str
    application: str

    def reset(self) -> None:
        """The home as the demo left it; the registry keeps absolute paths, so at its place."""
        shutil.rmtree(self.folder / ".ml_assets")
        shutil.copytree(self.pristine, self.folder / ".ml_assets")

    def moved(self, text: str) -> str:
        """The text with dates, ids and instants that this home has."""
        if "quarantine" in text:
            text = re.sub(r"(?<=--day )\d{4}-\d\d-\d\d", self.bad_day, text)
        text = re.sub(r"A-\d{8}-\d{6}", self.application, text)
        # The tables of this home began minutes ago.
        text = re.sub(r'(?<=as_of=")[^"]+', datetime.now().astimezone().isoformat(), text)
        shift = self.today - TODAY_IN_DOCS
        return re.sub(
            r"(?<![\w-])20\d\d-\d\d-\d\d(?![\w-])(?!T)",
            lambda match: (
                match[0]
                if match[0] == self.bad_day
                else (date.fromisoformat(match[0]) + shift).isoformat()
            ),
            text,
        )

    def environ(self) -> dict[str, str]:
        kept = {key: text for key, text in os.environ.items() if not key.startswith("ML_ASSETS_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**kept, "PATH": path, "COLUMNS": "160"}

    def run(self, asked: list[list[str]]) -> list[str | None]:
        """Run commands or scripts in turn; what each said if it failed."""
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / "ml_assets_tests" / "in_one_process.py")],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=self.environ(),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        told: list[str | None] = json.loads(done.stdout.splitlines()[-1])
        return told


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    import ml_assets

    folder = tmp_path_factory.mktemp("project")
    for part in ("ml_assets", "benchmarks", "workspace.yaml", "pyproject.toml", "deploy"):
        if (REPOSITORY / part).exists():
            (folder / part).symlink_to(REPOSITORY / part)
    home = folder / ".ml_assets"
    environment = load_environment("dev", environ={"ML_ASSETS_HOME": str(home)})
    today = datetime.now(environment.zone).date()
    found = Project(folder, folder / "pristine", today, "", "")
    yesterday = today - timedelta(days=1)
    told = found.run(
        [
            ["ml-assets", "demo", "--days", "58"],
            # A second version, which serves: so there is one to go back to, and one to promote.
            ["ml-assets", "run", "training", "--day", str(yesterday - timedelta(days=1))],
            ["ml-assets", "promote", "2", "--because", "for the tests"],
        ]
    )
    assert told == [None, None, None]
    home.rename(found.pristine)
    shutil.copytree(found.pristine, home)
    bad = ml_assets.load("claims/quarantine", home=home)
    said = ml_assets.load("claims/predictions", home=home, start=yesterday)
    return Project(folder, found.pristine, today, bad["day"].max(), said["application_id"].iloc[0])


@pytest.mark.slow
def test_the_commands_of_the_pages_work(project: Project) -> None:
    failed, ran = [], set()
    for page in pages():
        asked = {}
        for block in (found for found in blocks(*_SHELL) if found.page == name(page)):
            for command in block.commands():
                if command not in ran and not reason_not_to_run(command):
                    asked[command] = f"{block.page}:{block.line}"
        if not asked:
            continue
        ran |= set(asked)
        strange = [command for command in asked if not command.startswith("ml-assets ")]
        assert not strange, f"{name(page)}: say in NOT_RUN why these are not run: {strange}"
        project.reset()
        told = project.run([shlex.split(project.moved(command)) for command in asked])
        failed += [
            f"{where}: {command}\n{said}"
            for (command, where), said in zip(asked.items(), told, strict=True)
            if said
        ]

    assert len(ran) > 15
    assert not failed, "\n".join(failed)


@pytest.mark.slow
def test_the_python_of_the_pages_works(project: Project) -> None:
    project.reset()
    found = blocks("python")
    told = project.run([["python", project.moved(block.body)] for block in found])
    failed = [
        f"{block.page}:{block.line}\n{block.body}\n{said}"
        for block, said in zip(found, told, strict=True)
        if said
    ]

    assert len(found) > 4
    assert not failed, "\n".join(failed)
