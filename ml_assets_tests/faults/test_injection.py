"""What a source says is data: in SQL, paths, pages, terminals and logs it does nothing but show."""

import json
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import Result
from markdown_it import MarkdownIt
from typer.testing import CliRunner

import ml_assets
from ml_assets.assets.common import preview
from ml_assets.champions import history
from ml_assets.cli import app
from ml_assets.cli_common import console, errors
from ml_assets.core.texts import visible
from ml_assets.resources.lake import Lake, LakeError
from ml_assets.resources.warehouse import Warehouse, WarehouseError
from ml_assets.runs import RunFailed
from ml_assets_tests.conftest import Platform, new_platform, small_environment
from ml_assets_tests.faults.mutations import DAYS, NAMES, as_csv, some_rows
from ml_assets_tests.postgres import Postgres
from ml_assets_tests.test_sensors import Ticks

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SCORED = "2026-01-16"

SQL = [
    "'; DROP TABLE claims.ds_dataset; --",
    "x' OR '1'='1",
    "\\' OR 1=1 --",
    "x'' OR ''=''",
    '"; DROP TABLE claims.ds_dataset; --',
    "$$; SELECT 1; $$",
    ":start :end $1 ? %s %(x)s {0} {x}",
    "1/**/UNION/**/SELECT/**/1",
]
PATHS = ["../../etc/passwd", "..\\..\\windows", "/etc/passwd", "~/.ssh", "%2e%2e%2f", "a/./../b"]
PAGES = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</td></tr></table><h1>x</h1>",
    "{{ 7*7 }} {% raw %}",
    "&lt;b&gt;",
]
MARKDOWN = [
    "a|b",
    "a\\|b",
    "a\nb",
    "a\r\n| c | d |",
    "[x](javascript:alert(1))",
    "![x](https://example.org/x.png)",
    "<https://example.org>",
    "https://example.org/x",
    "www.example.org",
    "someone@example.org",
    "`code` ``more`` ```",
    "# heading",
    "**bold** _x_ ~~y~~",
    "[x]: https://example.org",
]
TERMINALS = [
    "[red]not red[/red]",
    "[link=https://example.org]x[/link]",
    "[/]",
    "[/nothing]",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;a title\x07",
    "\x9b2J",
    "\u202egnirts\u2066",
    "a\rb\x08\x7f",
]
LOGS = ["x\n2026-01-01 00:00:00 - INFO - all is well", "x\u2028y\u0085z", "%n%s%x"]
HOSTILE = [*SQL, *PATHS, *PAGES, *MARKDOWN, *TERMINALS, *LOGS]

# What a terminal or a log takes for a command or for the end of a line.
_ACTIVE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def ids(value: Any) -> str:
    return repr(value)[:24]


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("ENV", "HOME", "SOURCE", "WAREHOUSE_URL", "LAKE_URL", "REGISTRY_URL"):
        monkeypatch.delenv(f"ML_ASSETS_{variable}", raising=False)
    monkeypatch.chdir(tmp_path)
    for each in (console, errors):
        monkeypatch.setattr(each, "width", 10_000)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform that has scored a day whose keys are hostile, and some rows of it quarantined."""
    found = new_platform(tmp_path_factory.mktemp("hostile"))
    found.environment.dagster_home.mkdir(parents=True)
    found.arrive("2026-01-05", SCORED)

    def hostile(rows: pd.DataFrame) -> pd.DataFrame:
        good = rows.drop_duplicates("application_id").iloc[: 2 * len(HOSTILE)].copy()
        rest = rows[~rows.index.isin(good.index)]
        keys = [*HOSTILE, *(f"Q {text}" for text in HOSTILE)]
        good["application_id"] = keys
        good["occupation"] = ["A"] * len(HOSTILE) + HOSTILE
        for column, valid in (("age", 40), ("gender", 1), ("income", 30_000), ("bmi", 20)):
            good[column] = valid
        return pd.concat([good, rest], ignore_index=True)

    found.replace_day(SCORED, hostile)
    lenient = found.environment.contract.model_copy(update={"max_bad_share": 1.0})
    environment = found.environment.model_copy(update={"contract": lenient})
    found = Platform(environment, found.instance)
    found.run("ingestion", "2026-01-05", SCORED)
    for day in ("2026-01-15", SCORED):
        found.run("training", day)
    found.run("scoring", SCORED)
    return found


def call(platform: Platform, *arguments: str) -> Result:
    """Run a command; what follows `--` is taken as it is."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    home = ["--home", str(platform.environment.home)]
    return CliRunner().invoke(app, [*arguments[:end], *home, *arguments[end:]])


def refused(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.output.startswith("Error: ")
    return result.output


# Values in SQL and in predicates


def test_hostile_values_pass_through_the_whole_journey_unchanged(platform: Platform) -> None:
    assert set(HOSTILE) <= set(platform.table("predictions", SCORED)["application_id"])
    aside = platform.table("quarantine", SCORED).set_index("application_id")
    for text in HOSTILE:
        row = aside.loc[f"Q {text}"]
        assert (row["reason"], row["column"]) == ("unknown_category", "occupation")
        assert row["value"] == text
        assert json.loads(row["row"])["occupation"] == text


@pytest.mark.parametrize("text", HOSTILE, ids=ids)
def test_a_key_finds_its_own_row_and_no_other(platform: Platform, text: str) -> None:
    found = platform.lake.find("claims/predictions", "application_id", text)

    assert found["application_id"].tolist() == [text]


@pytest.mark.parametrize("text", ["' OR '1'='1", "A' OR day > '", "*", "%", "_", "", "\\"], ids=ids)
def test_a_key_that_is_not_there_finds_nothing(platform: Platform, text: str) -> None:
    assert platform.lake.find("claims/predictions", "application_id", text).empty


@pytest.fixture(scope="module", params=["duckdb", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database, in each engine."""
    if request.param == "duckdb":
        return f"duckdb:///{tmp_path_factory.mktemp('sql')}/warehouse.duckdb"
    server: Postgres = request.getfixturevalue("postgres")
    return server.url(server.new_database())


WINDOW = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)


def warehouse(url: str, zone: str = "Europe/London") -> Warehouse:
    return Warehouse(url, zone, 1, 0.01, 30)


@pytest.mark.parametrize("text", HOSTILE, ids=ids)
def test_values_and_column_names_reach_the_warehouse_bound_or_quoted(
    database: str, text: str
) -> None:
    own = warehouse(database)
    name = f"k {text}"[:50]
    columns = {name: "VARCHAR", "received": "TIMESTAMPTZ", "canary": "VARCHAR"}
    rows = pd.DataFrame(
        {
            name: [text, "other"],
            "received": pd.to_datetime(["2026-01-01T10:00Z"] * 2),
            "canary": ["safe", text],
        }
    )
    own.replace("hostile.data", columns, rows, [WINDOW], received_at="received")
    try:
        query = "SELECT * FROM hostile.data WHERE received >= :start AND received < :end"
        found = own.extract(query, WINDOW, key=name, received_at="received", updated_at="received")

        assert sorted(found.rows[name].to_pylist()) == sorted([text, "other"])
        assert sorted(found.rows["canary"].to_pylist()) == sorted(["safe", text])
        assert list(found.fingerprints) == ["2026-01-01"]
        assert not own.exists(f"hostile.{text.split('.')[0]}")
    finally:
        _drop(own)


def _drop(own: Warehouse) -> None:
    # Each test has a column of its own name: the table is made anew.
    if own.url.startswith("duckdb"):
        import duckdb

        with duckdb.connect(own.url.removeprefix("duckdb:///")) as connection:
            connection.execute("DROP TABLE hostile.data")
        return
    import psycopg

    with psycopg.connect(own.url, autocommit=True) as connection:
        connection.execute("DROP TABLE hostile.data")


@pytest.mark.parametrize(
    "name", ['a" , (SELECT 1) AS "b', "a'; DROP TABLE x; --", "ä\n--"], ids=ids
)
def test_a_column_that_is_cast_keeps_a_hostile_name(database: str, name: str) -> None:
    own = warehouse(database)
    quoted = name.replace('"', '""')
    kind = "JSON" if database.startswith("postgresql") else "MAP(VARCHAR, INTEGER)"
    value = "'[1]'::JSON" if database.startswith("postgresql") else "MAP {'a': 1}"
    query = f'SELECT CAST({value} AS {kind}) AS "{quoted}", 1 AS one WHERE :start < :end'

    if database.startswith("duckdb"):
        own.replace("hostile.made", {"x": "VARCHAR"}, pd.DataFrame({"x": []}), [], received_at="x")
    found = own.read(query, WINDOW)

    assert found.column_names == [name, "one"]
    assert found["one"].to_pylist() == [1]


def test_a_time_zone_with_sql_in_it_is_a_value(database: str) -> None:
    own = warehouse(database, zone="UTC' AS DATE) AS VARCHAR) --")
    query = "SELECT 'a' AS key, TIMESTAMPTZ '2026-01-01 10:00+00' AS received WHERE :start < :end"
    if database.startswith("duckdb"):
        own.replace("hostile.made", {"x": "VARCHAR"}, pd.DataFrame({"x": []}), [], received_at="x")

    with pytest.raises(WarehouseError, match=r"(?i)time ?zone"):
        own.fingerprints(query, WINDOW, key="key", received_at="received", updated_at="received")


# Paths


@pytest.mark.parametrize(
    "table",
    [
        "x'; DROP",
        "claims/raw'; DROP TABLE x; --",
        *PATHS,
        *PAGES,
        *TERMINALS,
        *LOGS,
        "claims/raw/../../..",
        "claims/raw\x00",
        "claims/%2e%2e/raw",
        "s3://bucket/claims/raw",
        "",
        " ",
        ".",
        "claims/raw?version=1",
        "x" * 5_000,
    ],
    ids=ids,
)
def test_a_table_that_is_none_is_refused_in_one_plain_message(
    platform: Platform, table: str
) -> None:
    before = sorted(platform.environment.home.rglob("*"))

    told = refused(call(platform, "data", "log", "--", table))

    assert not _ACTIVE.search(told), told
    assert len(told.splitlines()) == 1
    assert sorted(platform.environment.home.rglob("*")) == before


@pytest.mark.parametrize("name", ["../elsewhere/claims/raw", "claims/../../elsewhere/claims/raw"])
def test_a_name_does_not_lead_out_of_the_lake(platform: Platform, name: str) -> None:
    elsewhere = Lake(str(platform.environment.home / "elsewhere"), {}, 1)
    rows = pd.DataFrame({"day": ["2026-01-05"], "secret": ["x"]})
    elsewhere.write("claims/raw", rows, "2026-01-05", "2026-01-05")

    told = refused(call(platform, "data", "log", name))
    assert name in told
    with pytest.raises(LakeError, match="elsewhere"):
        ml_assets.load(name, home=platform.environment.home)
    with pytest.raises(LakeError, match="elsewhere"):
        platform.lake.write(name, rows, "2026-01-05", "2026-01-05")
    assert elsewhere.version("claims/raw") == 0


@pytest.mark.parametrize("day", ["2026-01-05' OR '1'='1", "../2026", "2026-01-05\n", "0000-00-00"])
def test_a_day_that_is_none_is_refused(platform: Platform, day: str) -> None:
    assert "is not a day" in refused(call(platform, "quarantine", "list", "--day", day))
    with pytest.raises(ValueError, match="is not a day"):
        ml_assets.load("claims/raw", start=day, home=platform.environment.home)


# Terminals


@pytest.mark.parametrize("text", HOSTILE, ids=ids)
def test_explain_prints_a_hostile_key_and_obeys_nothing_in_it(
    platform: Platform, text: str
) -> None:
    result = call(platform, "explain", "--", text)

    assert result.exit_code == 0, result.output
    assert result.output.count("Probability") == 1
    assert not _ACTIVE.search(result.output)
    told = " ".join(result.output.split())
    assert " ".join(visible(text).split()) in told


@pytest.mark.parametrize("text", HOSTILE, ids=ids)
def test_explain_of_an_unknown_key_obeys_nothing_in_it(platform: Platform, text: str) -> None:
    told = refused(call(platform, "explain", "--", f"no {text}"))

    assert not _ACTIVE.search(told)
    assert len(told.splitlines()) == 1
    assert "Check the id" in told


def test_quarantine_shows_hostile_rows_and_obeys_nothing_in_them(platform: Platform) -> None:
    result = call(platform, "quarantine", "show", "--reason", "unknown_category", "--limit", "999")

    assert result.exit_code == 0, result.output
    assert not _ACTIVE.search(result.output)
    aside = platform.table("quarantine", SCORED)
    aside = aside[aside["reason"] == "unknown_category"]
    # Three lines a row, whatever line ends its values hold.
    assert len(result.output.splitlines()) == 3 * len(aside)
    shown = [json.loads(line) for line in result.output.splitlines() if line.startswith("  {")]
    assert [row["application_id"] for row in shown] == aside["application_id"].tolist()
    for text in HOSTILE:
        assert visible(f"Q {text}") in result.output


@pytest.mark.parametrize("text", HOSTILE, ids=ids)
def test_quarantine_finds_a_hostile_key(platform: Platform, text: str) -> None:
    result = call(platform, "quarantine", "show", "--key", f"Q {text}")

    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("  {")]
    assert json.loads(line)["application_id"] == f"Q {text}"


@pytest.mark.parametrize("text", ["".join(each) for each in (PAGES, TERMINALS, LOGS)], ids=ids)
def test_a_reason_by_hand_stays_text_on_the_card_and_in_the_terminal(
    platform: Platform, text: str
) -> None:
    other = 3 - history(platform.lake, platform.use_case)[-1].version
    result = call(platform, "promote", str(other), "--because", f"because {text}")

    assert result.exit_code == 0, result.output
    assert not _ACTIVE.search(result.output)
    cards = platform.environment.home / "reports/claims"
    page = (cards / f"model_card_v{other}.html").read_text()
    assert "<" not in text or text not in page
    keys = platform.table("predictions", SCORED)["application_id"]
    key = keys[keys.str.startswith("A-")].iloc[0]
    assert not _ACTIVE.search(call(platform, "explain", "--", key).output)
    told = call(platform, "status")
    assert told.exit_code == 0, told.output
    assert not _ACTIVE.search(told.output)


# Pages


def cells(markdown: str) -> list[list[str]]:
    """The cells' texts of the one table in a page; whatever else it makes of it is a failure."""
    parsed = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    tokens = parsed.parse(markdown)
    assert (tokens[0].type, tokens[-1].type) == ("table_open", "table_close")
    assert sum(token.type == "table_open" for token in tokens) == 1
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            kinds = {child.type for child in token.children or []}
            assert kinds <= {"text", "code_inline"}, markdown
            for child in token.children or []:
                if child.type == "text":
                    assert not re.search(r"(?i)://|www\.|@", child.content), "would become a link"
            rows[-1].append("".join(child.content for child in token.children or []))
    return rows


@pytest.mark.parametrize(
    "text", [*HOSTILE, "x" * 10_000, "", " ", "|", "\\", "\\\\|", "`"], ids=ids
)
def test_a_preview_is_one_table_that_shows_values_as_they_are(text: str) -> None:
    frame = pd.DataFrame({f"name {text}": [text, "other"], "count": [1, 2]})

    header, first, second = cells(preview(frame).value)

    assert header[1:] == ["count"]
    assert first[1:] == ["1"]
    assert second == ["other", "2"]
    assert not _ACTIVE.search(first[0])
    assert len(first[0]) < 1_000
    if len(text) < 100 and "\\|" not in text:
        assert first[0].strip() == visible(text).strip()


def test_a_preview_keeps_texts_that_look_like_numbers_and_shows_what_is_missing() -> None:
    frame = pd.DataFrame(
        {
            "text": ["007", "1e5", None],
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "number": [0.123456789, float("nan"), 2.0],
            "at": pd.to_datetime(["2026-01-05T10:00Z", None, None]),
        }
    )

    assert cells(preview(frame).value)[1:] == [
        ["007", "1", "0.123457", "2026-01-05 10:00:00+00:00"],
        ["1e5", "", "", ""],
        ["", "3", "2", ""],
    ]
    assert cells(preview(frame.head(0)).value) == [["text", "whole", "number", "at"]]


@pytest.mark.parametrize("stage", ["raw", "quarantine", "features", "predictions"])
def test_the_previews_of_a_hostile_day_are_tables(platform: Platform, stage: str) -> None:
    shown = cells(platform.metadata(stage, SCORED)["preview"])

    assert len(shown) == 6
    assert {len(row) for row in shown} == {len(shown[0])}


# Logs


def test_a_log_line_stays_one_line_whatever_a_column_is_called(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import duckdb

    from ml_assets.use_cases.claims.delivery import TABLE
    from ml_assets_tests.assets.test_extraction import with_query

    platform = new_platform(tmp_path)
    platform.arrive("2026-01-05", "2026-01-05")
    # A file of SQL holds no other end of a line than \n.
    names = [f"n{at} {text}" for at, text in enumerate(HOSTILE) if "\r" not in text]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    with duckdb.connect(platform.warehouse.url.removeprefix("duckdb:///")) as connection:
        for name in quoted:
            connection.execute(f"ALTER TABLE {TABLE} ADD COLUMN {name} INTEGER")
    other = with_query(platform, lambda query: query.replace("age,", f"age, {', '.join(quoted)},"))
    caplog.set_level(logging.INFO)

    other.run("ingestion", "2026-01-05")

    ignored = other.metadata("raw", "2026-01-05")["columns_ignored"]
    assert ignored == [visible(name) for name in names]
    told = [
        entry.user_message
        for run in other.instance.get_runs()
        for entry in other.instance.all_logs(run.run_id)
        if "the contract does not know" in entry.user_message
    ]
    assert told
    for line in told:
        assert not _ACTIVE.search(line)
        assert "\n" not in line


def test_a_category_in_an_error_is_quoted(tmp_path: Path) -> None:
    platform = new_platform(tmp_path)
    platform.arrive("2026-01-05", "2026-01-05")
    text = "\x1b[31m<script>\n| [x](javascript:y)"
    platform.replace_day("2026-01-05", lambda rows: rows.assign(occupation=text))

    with pytest.raises(RunFailed) as failed:
        platform.run("ingestion", "2026-01-05")

    assert not _ACTIVE.search(str(failed.value))
    assert repr(text) in str(failed.value)


def test_dagsters_own_record_of_a_hostile_day_can_be_read(platform: Platform) -> None:
    for stage in ("raw", "quarantine", "extraction", "features", "predictions"):
        for name, value in platform.metadata(stage, SCORED).items():
            json.dumps(value)
            assert name.isprintable()
    status = platform.instance.get_status_by_partition(
        dg.AssetKey(["claims", "raw"]),
        [SCORED],
        dg.DailyPartitionsDefinition(start_date="2026-01-01"),
    )
    assert status is not None
    assert pa.array([str(status[SCORED])]).type == pa.string()


# Files


@pytest.fixture
def landed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A platform in whose inbox files have hostile names, columns and values."""
    environment = small_environment(tmp_path / "home")
    settings = {"complete": "renamed", "settle_seconds": 0}
    landing = environment.landing.model_copy(update=settings)
    contract = environment.contract.model_copy(update={"max_bad_share": 1.0})
    changes = {"source": "landing", "landing": landing, "contract": contract}
    environment = environment.model_copy(update=changes)
    environment.dagster_home.mkdir(parents=True)
    platform = Platform(environment, dg.DagsterInstance.ephemeral())
    inbox = environment.home / "landing"
    for place, name in enumerate(NAMES):
        file = inbox / f"in{place}" / name
        file.parent.mkdir(parents=True)
        rows = some_rows(place, 3).to_pandas()
        text = HOSTILE[place % len(HOSTILE)].replace("\x00", "")
        rows["application_id"] = [f"{place} {at} {text}" for at in range(3)]
        rows.loc[0, "occupation"] = text
        rows[f"new {text}"] = text
        file.write_bytes(as_csv(pa.Table.from_pandas(rows, preserve_index=False)))
    monkeypatch.setenv("ML_ASSETS_SOURCE", "landing")
    return platform


def test_hostile_files_reach_logs_terminals_and_records_as_text(
    landed: Platform,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)
    assert Ticks(landed, monkeypatch).tick()
    # Dagster lets its logger write by itself, or hands over to others once a job has run.
    lines = [*caplog.messages, *capfd.readouterr().err.splitlines()]
    ours = [line for line in lines if " took " in f" {line}" or " rejected " in f" {line}"]
    assert len(ours) >= len(NAMES)
    landed.run("ingestion", *DAYS)
    for line in ours:
        assert not _ACTIVE.search(line)
        assert "\n" not in line
    account = landed.table("extraction", *DAYS)
    assert account["rows_quarantined"].sum() >= 20
    commands = [
        ["landing", "list", "--limit", "100"],
        ["landing", "take"],
        ["quarantine", "show", "--limit", "999"],
        ["contract", "diff", "--day", DAYS[0]],
        ["data", "list"],
        ["data", "log", "claims/landing"],
    ]
    for command in commands:
        result = call(landed, *command)
        assert isinstance(result.exception, SystemExit | None), result.exception
        assert result.output
        assert not _ACTIVE.search(result.output), command
    for stage in ("raw", "quarantine"):
        assert len(cells(landed.metadata(stage, DAYS[0])["preview"])) == 6
    logged = [
        entry.user_message
        for run in landed.instance.get_runs()
        for entry in landed.instance.all_logs(run.run_id)
        if "the contract does not know" in entry.user_message
    ]
    assert logged
    assert not any(_ACTIVE.search(line) or "\n" in line for line in logged)
    aside = landed.table("quarantine", *DAYS)
    assert aside["origin"].map(str.isprintable).all()
