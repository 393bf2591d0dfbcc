"""What pages tell people to type in a deployment names services, commands and files that are there.

`ml_assets_tests/test_docs.py` reads the pages and knows the commands that need no container.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adbc_driver_manager
import pytest
import yaml

from ml_assets_tests.postgres import Postgres, run_sql
from ml_assets_tests.programs import need_programs
from ml_assets_tests.test_docs import blocks, complaint, name, pages, prose

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICES: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
# Where the container `postgres` finds the files that are mounted into it.
MOUNTED = {
    target: str(DEPLOY / source)
    for source, target, *_ in (each.split(":") for each in SERVICES["postgres"]["volumes"])
    if source.startswith("./")
}
_ACTIONS = {"exec", "logs", "ps", "pull", "restart", "run", "stop", "top", "up"}
_WITH_VALUE = {"--file", "--env-file", "--profile", "--since", "--env", "-e", "--user"}
_POSTGRES = ("psql", "pg_dump", "pg_restore")
_PROGRAMS = {"ml-assets", "mlflow", "python", "sh", *_POSTGRES}


def told() -> Iterator[tuple[str, str]]:
    """Each compose command of the pages, in blocks and in the text, with where it stands."""
    for block in blocks("bash", "sh", "shell", "console"):
        for command in block.commands():
            yield f"{block.page}:{block.line}", command
    for page in pages():
        for match in re.finditer(r"`((?:docker )?compose\s[^`]*)`", prose(page)):
            yield name(page), " ".join(match[1].split())


def composed(line: str) -> Iterator[list[str]]:
    """What follows `compose` in each command of a line, without what the shell does with it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in {"&&", "||", "|", ";"}:
            if "compose" in words[:2]:
                found = words[words.index("compose") + 1 :]
                yield found[: next((n for n, it in enumerate(found) if it[:1] in ("<", ">")), None)]
            words = []
        else:
            words.append(word)


def without_options(words: list[str]) -> list[str]:
    """The words from the first on that is neither an option nor an option's value."""
    while words and words[0].startswith("-"):
        words = words[2 if words[0] in _WITH_VALUE else 1 :]
    return words


def wrong(words: list[str]) -> str | None:
    """What is wrong with a compose command; nothing if it can be run."""
    words = without_options(words)
    if not words:
        return None
    action, words = words[0], without_options(words[1:])
    if action not in _ACTIONS:
        return f"compose has no command {action}"
    in_one = action in {"exec", "run"}
    unknown = [word for word in (words[:1] if in_one else words) if word not in SERVICES]
    if unknown:
        return f"no service {unknown[0]}"
    if not in_one:
        return None
    service, inside = words[0], words[1:]
    if inside and inside[0] not in _PROGRAMS:
        return f"no program {inside[0]}"
    if inside[:1] == ["ml-assets"]:
        return complaint(shlex.join(inside))
    if inside and inside[0] in _POSTGRES:
        if service != "postgres":
            return f"{service} has no {inside[0]}"
        files = [inside[n + 1] for n, word in enumerate(inside) if word in {"-f", "--file"}]
        return next((f"no file {file} there" for file in files if file not in MOUNTED), None)
    return None


def test_every_compose_command_that_a_page_names_can_be_run() -> None:
    found = [(where, words) for where, line in told() for words in composed(line)]

    assert len(found) > 20
    bad = [
        f"{where}: {shlex.join(words)}: {why}" for where, words in found if (why := wrong(words))
    ]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("compose stop deamon && compose stop", "no service deamon"),
        ("compose stop daemon && compose halt", "compose has no command halt"),
        ("compose up --detach --wait postgres mlflow", None),
        ("docker compose --env-file FILE exec -T codes ml-assets status", "no service codes"),
        ("compose run --rm code ml-assets run ingest --day 2026-01-05", None),
        ("compose run --rm code ml-assets runs ingestion", "no command runs"),
        ("compose exec code ml-assets status --all-of-it", "no option --all-of-it"),
        ("compose exec code ml-asset status", "no program ml-asset"),
        ("compose exec code psql --username postgres", "code has no psql"),
        ("compose exec postgres psql -f deploy/sql/x.sql", "no file deploy/sql/x.sql there"),
        ("compose exec -T postgres pg_restore --dbname mlflow < mlflow.dump", None),
    ],
)
def test_a_command_that_cannot_be_run_is_found(line: str, why: str | None) -> None:
    assert next(filter(None, map(wrong, composed(line))), None) == why


@pytest.mark.slow
def test_the_runbook_rotates_passwords_backs_up_and_restores(
    own_postgres: Postgres, tmp_path: Path
) -> None:
    need_programs(*_POSTGRES)
    run_sql(own_postgres.url("postgres"), "CREATE ROLE postgres SUPERUSER LOGIN PASSWORD 'right'")
    runbook = [line for where, line in told() if where == "docs/runbook.md"]

    def run(program: str, database: str = "", **passwords: str) -> None:
        """Run the runbook's one command with a program, here instead of in the container."""
        command = re.compile(rf"compose exec (?:-T )?postgres ({program} .*)")
        lines = {found[1] for line in runbook if (found := command.fullmatch(line))}
        assert len(lines) == 1, f"{program}: {lines}"
        text = lines.pop()
        for there, here in MOUNTED.items():
            text = text.replace(there, here)
        # The page shows it for one of the two databases, and says "the same for" the other.
        text = re.sub("dagster|mlflow", database, text) if database else text
        subprocess.run(
            ["sh", "-ec", text],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "PGHOST": "127.0.0.1",
                "PGPORT": str(own_postgres.port),
                "PGPASSWORD": "right",
                **passwords,
            },
            check=True,
        )

    def url(role: str, password: str) -> str:
        return f"postgresql://{role}:{password}@127.0.0.1:{own_postgres.port}/{role}"

    for dagsters, mlflows in (("one", "two"), ("three", "four")):
        run("psql", DAGSTER_DB_PASSWORD=dagsters, MLFLOW_DB_PASSWORD=mlflows)
        for role, password in (("dagster", dagsters), ("mlflow", mlflows)):
            assert run_sql(url(role, password), "SELECT 1 AS one") == [{"one": 1}]
    for role, password in (("dagster", "one"), ("mlflow", "two")):
        with pytest.raises(adbc_driver_manager.Error, match="password authentication failed"):
            run_sql(url(role, password), "SELECT 1")

    for role, password in (("dagster", "three"), ("mlflow", "four")):
        run_sql(url(role, password), "CREATE TABLE kept AS SELECT 1 AS x")
        run("pg_dump", role)
        run_sql(url(role, password), "UPDATE kept SET x = 2", "CREATE TABLE newer (y int)")
        run("pg_restore", role)
        assert run_sql(url(role, password), "SELECT x FROM kept") == [{"x": 1}]
        run_sql(url(role, password), "INSERT INTO kept VALUES (3)")  # still its owner's
