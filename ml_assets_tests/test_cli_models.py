"""The commands about models: what they print, what they leave behind, and how they fail."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_assets.champions import history
from ml_assets.cli import app
from ml_assets.cli_common import console
from ml_assets.core.explanations import read_reasons
from ml_assets.core.scoring import standing
from ml_assets_tests.conftest import SMALL, Platform, new_platform

DAY = "2026-01-16"
COMMANDS = ["models", "promote", "rollback", "reproduce", "explain"]


@pytest.fixture(autouse=True)
def no_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("ENV", "HOME", "WAREHOUSE_URL", "LAKE_URL", "REGISTRY_URL"):
        monkeypatch.delenv(f"ML_ASSETS_{variable}", raising=False)
    monkeypatch.chdir(tmp_path)
    # The console asks for the terminal's width once, when it is made.
    monkeypatch.setattr(console, "width", 200)


@dataclass(frozen=True)
class Home:
    """A project's folder with two registered versions, one of which serves and has scored a day."""

    platform: Platform

    def call(self, *arguments: str) -> Result:
        return call(*arguments, "--home", str(self.platform.environment.home))

    def served(self) -> list[int]:
        return [reign.version for reign in history(self.platform.lake, SMALL)]

    def alias(self) -> list[int]:
        registered = self.platform.registry.versions("claims")
        return [each.version for each in registered if "champion" in each.aliases]

    def card(self, version: int) -> str:
        """A version's model card, which must be the same here and in the registry."""
        file = self.platform.environment.home / "reports/claims" / f"model_card_v{version}.html"
        kept = self.platform.registry.artifact("claims", version, "model_card.html")
        assert kept == file.read_bytes()
        return kept.decode()


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def unfolded(output: str) -> str:
    """Printed text as one line, however narrow the terminal."""
    return " ".join(output.replace("│", " ").split())


def refused(result: Result) -> str:
    """What a command that ended in one message said; a traceback would be no such message."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.output.startswith("Error: ")
    return result.output


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    platform = new_platform(tmp_path_factory.mktemp("home"))
    platform.environment.dagster_home.mkdir()  # as any first command leaves it
    platform.arrive("2026-01-05", DAY)
    platform.run("ingestion", "2026-01-05", DAY)
    platform.run("training", "2026-01-15")
    # One round of boosting knows next to nothing, so the first goes on serving.
    weak = platform.environment.training.model_copy(update={"max_rounds": 1})
    environment = platform.environment.model_copy(update={"training": weak})
    Platform(environment, platform.instance).run("training", DAY)
    platform.run("scoring", DAY)
    return Home(platform)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_each_command(command: str) -> None:
    overview, own = call("--help"), call(command, "--help")

    assert command in overview.output
    assert own.exit_code == 0
    assert "--home" in own.output
    assert "--env" in own.output
    assert len(own.output) > 500


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["models"], "no model of claims is registered yet. Run `ml-assets demo`"),
        (["promote", "1", "--because", "x"], "claims has no version 1 in the registry"),
        (["rollback", "--because", "x"], "no model serves yet"),
        (["reproduce", "1"], "claims has no version 1 in the registry"),
        (["explain", "A1"], "no prediction was made about application_id 'A1': there are none"),
    ],
)
def test_before_any_model_each_command_says_what_is_missing(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    (tmp_path / "empty" / "dagster").mkdir(parents=True)

    result = call(*arguments, "--home", str(tmp_path / "empty"))

    assert told in refused(result)


@pytest.mark.parametrize(
    "arguments", [["models"], ["promote", "1", "--because", "x"], ["explain", "A1"]]
)
def test_a_mistyped_home_is_named_and_not_made(arguments: list[str], tmp_path: Path) -> None:
    result = call(*arguments, "--home", str(tmp_path / "mistyped"))

    assert "there is nothing in" in refused(result)
    assert "mistyped" in refused(result)
    assert not (tmp_path / "mistyped").exists()


@pytest.mark.parametrize(
    "arguments", [["models"], ["promote", "1", "--because", "x"], ["reproduce", "1"]]
)
def test_a_home_that_is_no_folder_is_named(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    result = call(*arguments, "--home", str(tmp_path / "file"))

    assert str(tmp_path / "file") in refused(result)


@pytest.mark.parametrize(
    "arguments",
    [
        ["promote", "1"],
        ["promote", "--because", "x"],
        ["promote", "0", "--because", "x"],
        ["promote", "first", "--because", "x"],
        ["rollback"],
        ["reproduce"],
        ["reproduce", "0"],
        ["explain"],
    ],
)
def test_what_a_command_needs_is_asked_for(arguments: list[str]) -> None:
    result = call(*arguments)

    assert result.exit_code == 2
    assert "Usage:" in result.output


def test_models_lists_versions_newest_first_with_figures_and_who_serves(home: Home) -> None:
    output = home.call("models").output

    lines = [line for line in output.splitlines() if re.match(r"│ \d", line)]
    assert [line.split()[1] for line in lines] == ["2", "1"]
    for version, line in zip((2, 1), lines, strict=True):
        metrics = home.platform.registry.version("claims", version).metrics
        assert f"{metrics['holdout_roc_auc']:.4f}" in line
        assert f"{metrics['holdout_log_loss']:.4f}" in line
    assert "challenger" in lines[0]
    assert "since" not in lines[0]
    assert re.search(r"champion .*since 20\d\d-\d\d-\d\d \d\d:\d\d", lines[1])


def test_explain_tells_what_was_said_with_what_and_why(home: Home) -> None:
    said = home.platform.table("predictions", DAY).iloc[0]
    model = home.platform.table("model", "2026-01-15").iloc[0]

    result = home.call("explain", said["application_id"])

    assert result.exit_code == 0, result.output
    output = unfolded(result.output)
    assert f"{said['application_id']}, received {DAY}" in output
    assert f"{said['probability']:.1%}" in output
    assert ("not referred" in output) is not said["refer"]
    assert f"from {model['threshold']:.1%}" in output
    assert "claims version 1 as of 2026-01-15" in output
    assert "none served before" in output
    assert said["data_version"] in output
    assert said["code_version"] in output
    for reason in read_reasons(said["reasons"]):
        bar = re.search(rf" {reason.feature} .*?{re.escape(f'{reason.effect:+.2f}')}", output)
        assert bar, output
        assert "█" in bar[0]


@pytest.mark.parametrize("key", ["A-unknown", "' OR 1=1 --", ""])
def test_explain_of_an_unknown_application_says_what_to_check(home: Home, key: str) -> None:
    told = refused(home.call("explain", key))

    assert f"no prediction was made about application_id {key!r}" in told
    assert f"predictions of {DAY} to {DAY} are there" in told


def test_explain_computes_reasons_that_were_not_stored_while_the_inputs_are_the_same(
    home: Home,
) -> None:
    platform = home.platform
    stored, features = platform.table("predictions", DAY), platform.table("features", DAY)
    key = stored["application_id"][0]
    try:
        platform.lake.write("claims/predictions", stored.assign(reasons="[]"), DAY, DAY)
        computed = home.call("explain", key).output
        # Half a year is between any two ages that the source may know.
        changed = features.assign(age=features["age"] + 1)
        platform.lake.write("claims/features", changed, DAY, DAY)
        gone = home.call("explain", key).output
    finally:
        platform.lake.write("claims/predictions", stored, DAY, DAY)
        platform.lake.write("claims/features", features, DAY, DAY)

    assert "computed now: none were stored with the prediction" in computed
    strongest = read_reasons(stored["reasons"][0])[0]
    assert re.search(rf"{strongest.feature} .*{re.escape(f'{strongest.effect:+.2f}')}", computed)
    assert "the application has changed since" in gone
    assert "█" not in gone


def test_reproduce_of_an_untouched_platform_finds_the_same_bytes(home: Home) -> None:
    result = home.call("reproduce", "1")

    assert result.exit_code == 0, result.output
    sha256 = home.platform.registry.version("claims", 1).sha256
    assert f"version 1 is reproduced: the same bytes, SHA-256 {sha256}" in result.output


@pytest.mark.parametrize("command", ["promote", "reproduce"])
def test_an_unknown_version_is_refused_with_those_known(home: Home, command: str) -> None:
    arguments = [command, "7", *(["--because", "x"] if command == "promote" else [])]

    told = refused(home.call(*arguments))

    assert "claims has no version 7 in the registry" in told
    assert "newest known: 2, 1" in told
    assert home.served() == [1]


@pytest.mark.parametrize("because", ["", "   "])
@pytest.mark.parametrize("arguments", [["promote", "2"], ["rollback"]])
def test_a_deed_without_a_reason_is_refused(home: Home, arguments: list[str], because: str) -> None:
    told = refused(home.call(*arguments, "--because", because))

    assert "--because is empty" in told
    assert home.served() == [1]


def test_promote_of_the_one_that_serves_and_rollback_of_the_only_one_change_nothing(
    home: Home,
) -> None:
    serving = refused(home.call("promote", "1", "--because", "x"))
    only = refused(home.call("rollback", "--because", "x"))

    assert "claims version 1 serves already, since 20" in serving
    assert "version 1 is the only one that ever served" in only
    assert home.served() == [1]


def test_a_corrupt_version_is_not_promoted(home: Home) -> None:
    platform = home.platform
    run_id = platform.registry.version("claims", 2).run_id
    files = list(Path(platform.registry.artifacts).rglob("model.ubj"))
    (file,) = [each for each in files if run_id in str(each)]
    content = file.read_bytes()
    cached = Path(platform.registry.cache) / platform.registry.version("claims", 2).sha256
    cached.rename(cached.with_suffix(".aside"))
    file.write_bytes(content[:-10])
    try:
        told = refused(home.call("promote", "2", "--because", "x"))
    finally:
        file.write_bytes(content)

    assert "claims version 2" in told
    assert "is corrupt: model.ubj has SHA-256" in told
    assert "Restore its files from a backup" in told
    assert home.served() == [1]
    assert home.alias() == [1]


def test_promote_then_rollback_change_who_serves_and_renew_the_cards(home: Home) -> None:
    assert "challenger" in home.card(2)
    assert "the board wants it" not in home.card(2)

    promoted = home.call("promote", "2", "--because", " the board wants it [bold] ")

    assert promoted.exit_code == 0, promoted.output
    assert "claims version 2 serves from now on" in promoted.output
    assert (home.served(), home.alias()) == ([1, 2], [2])
    last = history(home.platform.lake, SMALL)[-1]
    assert (last.event, last.reason) == ("promoted_by_hand", "the board wants it [bold]")
    assert last.by
    assert "the board wants it [bold]" in home.card(2)
    assert "model_card_v2.html" in promoted.output
    home.platform.run("scoring", DAY)
    said = home.platform.table("predictions", DAY)
    assert set(standing(said)["model_version"]) == {2}
    explained = home.call("explain", said["application_id"][0]).output
    assert "the board wants it [bold]" in explained

    back = home.call("rollback", "--because", "they changed their mind")

    assert back.exit_code == 0, back.output
    assert "claims version 1 serves again, in place of version 2" in back.output
    assert (home.served(), home.alias()) == ([1, 2, 1], [1])
    assert "they changed their mind" in home.card(1)
    output = home.call("models").output
    assert re.search(r"│ 2 .*20\S+ \d\d:\d\d … 20\S+ \d\d:\d\d", output)
    assert re.search(r"│ 1 .*champion .*20\S+ \d\d:\d\d … 20\S+ \d\d:\d\d", output)
    # What was said stays said, and with the reason that held at the time.
    pd.testing.assert_frame_equal(home.platform.table("predictions", DAY), said)
    assert "the board wants it" in home.call("explain", said["application_id"][0]).output


def test_the_card_of_a_version_that_ceased_to_serve_says_so_for_both(home: Home) -> None:
    """Whoever gives way to another is no champion on its own card either."""
    home.call("promote", "2", "--because", "once more")

    assert home.served()[-1] == 2
    status = {version: shown_status(home.card(version)) for version in (1, 2)}
    assert status == {1: "retired", 2: "champion"}


def test_a_rollback_from_a_version_whose_files_are_gone_is_done_and_told(home: Home) -> None:
    platform = home.platform
    serving = home.served()[-1]
    registered = platform.registry.version("claims", serving)
    (folder,) = Path(platform.registry.artifacts).rglob(registered.run_id)
    cached = Path(platform.registry.cache) / registered.sha256
    folder.rename(folder.with_suffix(".aside"))
    cached.rename(cached.with_suffix(".also_aside"))

    result = home.call("rollback", "--because", "its files are gone")

    assert result.exit_code == 0, result.output
    assert home.served()[-1] == home.alias()[0] == 1 != serving
    assert f"model card of version {serving} could not be renewed" in result.output
    assert "its files are gone" in home.card(1)


def shown_status(card: str) -> str:
    found = re.search(r"<title>claims model, version \d+ \((\w+)\)", card)
    assert found, card[:3000]
    return found[1]
