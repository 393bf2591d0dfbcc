"""Gate and hand together, through real runs: who serves after each deed, and what stays as it was.

One story, told once; each test looks at some of its moments.
"""

import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from ml_assets.champions import GATE, Hand, NoChampion, Reign, champion, history, promote, record
from ml_assets.champions import rollback as roll_back
from ml_assets.core.scoring import standing
from ml_assets.environment import Environment
from ml_assets.runs import RunFailed
from ml_assets.schedules import keep_unchanged
from ml_assets_tests.conftest import Platform, new_platform

SCORED = "2026-01-16"


@dataclass(frozen=True)
class Moment:
    """How things stood after a deed."""

    history: list[Reign]
    alias: int | None
    decisions: pd.DataFrame

    @property
    def served(self) -> list[int]:
        return [reign.version for reign in self.history]


@dataclass
class Story:
    """A platform, and how things stood after each deed."""

    platform: Platform
    moments: dict[str, Moment] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    predictions: dict[str, pd.DataFrame] = field(default_factory=dict)
    shadow: dict[str, pd.DataFrame] = field(default_factory=dict)
    metadata: dict[str, dict] = field(default_factory=dict)

    def remember(self, name: str) -> None:
        registered = self.platform.registry.versions("claims")
        pointed = [each.version for each in registered if "champion" in each.aliases]
        decisions = pd.DataFrame()
        if self.platform.lake.rows_per_day("claims/champion"):
            decisions = self.platform.table("champion", "2026-01-01", "2026-01-31")
            decisions = decisions.set_index("day")
        self.moments[name] = Moment(self.history(), pointed[0] if pointed else None, decisions)

    def history(self) -> list[Reign]:
        return history(self.platform.lake, self.platform.use_case)

    def train(self, day: str, environment: Environment | None = None, only: str = "") -> None:
        platform = self.platform
        if environment:
            platform = Platform(environment, platform.instance)
        platform.run("training", day, only=only or None)

    def score(self, name: str, *, by_schedule: bool = False) -> None:
        config = keep_unchanged(self.platform.use_case) if by_schedule else None
        self.platform.run("scoring", SCORED, config=config)
        said = standing(self.platform.table("predictions", SCORED))
        self.predictions[name] = said.reset_index(drop=True)
        self.shadow[name] = (
            self.platform.table("shadow", SCORED)
            if self.platform.lake.rows_per_day("claims/shadow")
            else pd.DataFrame()
        )
        self.metadata[name] = dict(self.platform.metadata("shadow", SCORED))

    def promote(self, version: int) -> None:
        platform = self.platform
        promote(
            platform.environment,
            platform.use_case,
            platform.lake,
            platform.registry,
            version,
            self.hand("as agreed"),
        )

    def roll_back(self, because: str) -> None:
        platform = self.platform
        roll_back(
            platform.environment,
            platform.use_case,
            platform.lake,
            platform.registry,
            self.hand(because),
        )

    @staticmethod
    def hand(because: str) -> Hand:
        return Hand("ada", because, datetime.now(UTC))

    @property
    def weak(self) -> Environment:
        """One round of boosting knows next to nothing."""
        environment = self.platform.environment
        training = environment.training.model_copy(update={"max_rounds": 1})
        return environment.model_copy(update={"training": training})

    def strict(self, environment: Environment) -> Environment:
        """No holdout has so many rows."""
        guardrails = environment.gate.guardrails.model_copy(update={"min_holdout_rows": 10**6})
        gate = environment.gate.model_copy(update={"guardrails": guardrails})
        return environment.model_copy(update={"gate": gate})


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    platform = new_platform(tmp_path_factory.mktemp("story"))
    story = Story(platform)
    platform.arrive("2026-01-05", "2026-01-18")
    platform.run("ingestion", "2026-01-05", "2026-01-18")

    with pytest.raises(RunFailed) as refused:
        story.train("2026-01-14", story.strict(story.weak))
    story.refusals["unfit"] = str(refused.value)
    story.remember("unfit")
    story.promote(1)
    story.remember("first by hand")
    story.train("2026-01-14", story.weak)
    story.remember("14th again")
    story.score("weak")

    story.train("2026-01-15")
    story.remember("superior")
    story.score("kept by schedule", by_schedule=True)
    story.score("superior")

    story.roll_back("claims came in that nobody saw")
    story.remember("rolled back")
    story.score("rolled back")
    story.train("2026-01-15")
    story.remember("15th again")

    story.train("2026-01-16")
    story.remember("next challenger")
    story.score("next challenger")
    story.train("2026-01-15")
    story.remember("about the past")

    # As if the process had died between the history's row and the table's.
    story.train("2026-01-17", story.weak, only="training_set")
    story.train("2026-01-17", story.weak, only="model")
    model = platform.table("model", "2026-01-17").iloc[0]
    record(
        platform.lake,
        platform.use_case,
        Reign(
            "2026-01-17", datetime.now(UTC), int(model["version"]), model["sha256"],
            "promoted", "superior", GATE, "cut short",
        ),
    )  # fmt: skip
    platform.registry.set_alias("claims", "champion", int(model["version"]))
    story.remember("cut short")
    story.train("2026-01-17", story.weak)
    story.remember("after cut short")

    story.promote(1)
    story.train("2026-01-18", story.strict(platform.environment))
    story.remember("guardrail")
    story.train("2026-01-18")
    story.remember("18th again")
    return story


def test_a_first_model_that_breaks_a_guardrail_fails_the_run_with_the_remedy(story: Story) -> None:
    told, after = story.refusals["unfit"], story.moments["unfit"]

    assert "version 1 would be the first to serve, and breaks a guardrail" in told
    assert "at least 1,000,000 are needed" in told
    assert "ml-assets promote 1 --because TEXT" in told
    assert (after.history, after.alias, len(after.decisions)) == ([], None, 0)


def test_such_a_model_can_be_taken_as_it_is_by_hand_and_the_gate_agrees_afterwards(
    story: Story,
) -> None:
    by_hand, again = story.moments["first by hand"], story.moments["14th again"]

    assert by_hand.served == [1]
    assert by_hand.alias == 1
    assert again.history == by_hand.history
    row = again.decisions.loc["2026-01-14"]
    assert (row["decision"], row["version"], row["previous_version"]) == ("kept", 1, 1)
    assert row["reason"] == "challenger version 1 serves already"
    assert set(story.predictions["weak"]["model_version"]) == {1}


def test_a_superior_challenger_takes_the_place_of_one_that_a_hand_put_there(story: Story) -> None:
    after = story.moments["superior"]

    row = after.decisions.loc["2026-01-15"]
    assert (row["decision"], row["rule"]) == ("promoted", "superior")
    assert (row["version"], row["previous_version"]) == (2, 1)
    assert row["difference_high"] < 0
    assert after.served == [1, 2]
    assert (after.history[-1].event, after.history[-1].by) == ("promoted", "gate")
    assert after.history[-1].reason == row["reason"]
    assert after.alias == 2


def test_predictions_stand_by_schedule_and_follow_the_champion_by_hand(story: Story) -> None:
    said = story.predictions

    pd.testing.assert_frame_equal(said["kept by schedule"], said["weak"])
    assert set(said["superior"]["model_version"]) == {2}


def test_the_scoring_after_a_rollback_uses_the_version_that_serves_again(story: Story) -> None:
    after = story.moments["rolled back"]

    assert after.served == [1, 2, 1]
    assert after.alias == 1
    assert set(story.predictions["rolled back"]["model_version"]) == {1}
    for name in ("probability", "refer", "reasons"):
        pd.testing.assert_series_equal(
            story.predictions["rolled back"][name], story.predictions["weak"][name]
        )


def test_the_gate_deciding_anew_does_not_bring_back_what_was_rolled_back(story: Story) -> None:
    before, after = story.moments["rolled back"], story.moments["15th again"]

    assert after.history == before.history
    assert after.alias == 1
    # What the gate decided then stays on record as it was.
    pd.testing.assert_frame_equal(after.decisions, before.decisions)


@pytest.fixture(scope="module")
def small_story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A weak first champion and a good second one, whose run died before its table was written."""
    story = Story(new_platform(tmp_path_factory.mktemp("small")))
    platform = story.platform
    platform.arrive("2026-01-05", "2026-01-17")
    platform.run("ingestion", "2026-01-05", "2026-01-17")
    story.train("2026-01-14", story.weak)
    story.train("2026-01-15", only="training_set")
    story.train("2026-01-15", only="model")
    model = platform.table("model", "2026-01-15").iloc[0]
    at = datetime.now(UTC)
    record(
        platform.lake,
        platform.use_case,
        Reign("2026-01-15", at, 2, model["sha256"], "promoted", "superior", GATE, "cut short"),
    )
    return story


def test_a_decision_about_the_day_before_one_that_was_cut_short_is_about_the_past(
    small_story: Story,
) -> None:
    small_story.remember("before")

    small_story.train("2026-01-14", small_story.weak)

    small_story.remember("after")
    assert small_story.moments["after"].history == small_story.moments["before"].history


def test_a_decision_that_was_cut_short_does_not_bring_back_what_was_rolled_back(
    small_story: Story,
) -> None:
    small_story.roll_back("claims came in that nobody saw")

    small_story.train("2026-01-15")

    small_story.remember("again")
    row = small_story.moments["again"].decisions.loc["2026-01-15"]
    assert (row["decision"], row["rule"], row["version"]) == ("kept", "rolled_back", 1)
    assert "ada rolled it back" in row["reason"]
    assert "claims came in that nobody saw" in row["reason"]
    assert "ml-assets promote 2 lifts that" in row["reason"]
    assert small_story.moments["again"].served == [1, 2, 1]


def test_after_a_rollback_the_gate_promotes_none_for_some_days(small_story: Story) -> None:
    environment = small_story.platform.environment
    gate = environment.gate.model_copy(update={"hold_after_rollback_days": 7})

    small_story.train("2026-01-16", environment.model_copy(update={"gate": gate}))

    small_story.remember("held")
    row = small_story.moments["held"].decisions.loc["2026-01-16"]
    assert (row["decision"], row["rule"], row["version"]) == ("kept", "on_hold", 1)
    assert "claims came in that nobody saw" in row["reason"]
    assert "ml-assets promote 3 lifts that" in row["reason"]
    small_story.train("2026-01-17")
    small_story.remember("not held")
    assert small_story.moments["not held"].decisions.loc["2026-01-17", "decision"] == "promoted"


def test_the_next_challenger_is_judged_against_the_one_that_serves_now(story: Story) -> None:
    after = story.moments["next challenger"]

    row = after.decisions.loc["2026-01-16"]
    assert (row["challenger_version"], row["previous_version"]) == (3, 1)
    assert (row["decision"], row["version"]) == ("promoted", 3)
    assert after.served == [1, 2, 1, 3]
    assert after.alias == 3


def test_the_gate_deciding_anew_does_not_overrule_a_person_who_spoke_since(tmp_path: Path) -> None:
    story = Story(new_platform(tmp_path))
    story.platform.arrive("2026-01-05", "2026-01-16")
    story.platform.run("ingestion", "2026-01-05", "2026-01-16")
    story.train("2026-01-14", story.weak)
    story.train("2026-01-15")
    story.train("2026-01-16", story.strict(story.platform.environment))
    story.remember("kept")
    story.promote(1)
    story.remember("by hand")

    story.train("2026-01-16")

    story.remember("again")
    kept, by_hand, again = (story.moments[name] for name in ("kept", "by hand", "again"))
    assert kept.decisions.loc["2026-01-16", "decision"] == "kept"
    assert again.history == by_hand.history
    assert again.served[-1] == again.alias == 1
    pd.testing.assert_frame_equal(again.decisions, by_hand.decisions)


def test_a_decision_about_the_past_changes_neither_history_nor_alias(story: Story) -> None:
    before, after = story.moments["next challenger"], story.moments["about the past"]

    assert after.history == before.history
    assert after.alias == 3
    pd.testing.assert_series_equal(
        after.decisions.loc["2026-01-16"], before.decisions.loc["2026-01-16"]
    )


def test_a_run_cut_short_after_its_history_row_decides_as_if_it_had_not_begun(story: Story) -> None:
    before, after = story.moments["cut short"], story.moments["after cut short"]

    assert (before.served[-1], before.alias) == (4, 4)
    row = after.decisions.loc["2026-01-17"]
    assert (row["challenger_version"], row["previous_version"]) == (4, 3)
    assert (row["decision"], row["version"]) == ("kept", 3)
    assert after.history[:-1] == before.history, "rows are only added"
    assert (after.history[-1].event, after.history[-1].version) == ("kept", 3)
    assert after.alias == 3


def test_a_broken_guardrail_stops_a_superior_challenger_and_is_named(story: Story) -> None:
    after, again = story.moments["guardrail"], story.moments["18th again"]

    row = after.decisions.loc["2026-01-18"]
    assert (row["decision"], row["rule"], row["version"]) == ("kept", "guardrail", 1)
    assert row["difference_high"] < 0, "it is superior all the same"
    assert "at least 1,000,000 are needed (guardrail)" in row["reason"]
    assert after.alias == 1
    lenient = again.decisions.loc["2026-01-18"]
    assert (lenient["decision"], lenient["version"]) == ("promoted", 5)
    assert again.served == [*after.served, 5]


def test_the_gates_finding_stays_with_the_challenger(story: Story) -> None:
    found = json.loads(story.platform.registry.artifact("claims", 3, "gate.json"))

    assert found["against"] == 1
    assert found["verdict"]["promote"] is True
    assert {each["name"] for each in found["guardrails"]} == {
        "window",
        "calibration_slope",
        "missing_values",
        "worst_slice",
    }
    assert len(found["disagreements"]) == 10
    apart = [abs(each["champion"] - each["challenger"]) for each in found["disagreements"]]
    assert apart == pytest.approx(sorted(apart, reverse=True), abs=1e-4)
    for each in found["disagreements"]:
        assert set(each) == {"key", "day", "champion", "challenger", "reasons"}
        names = each["reasons"].split(", ")
        assert len(names) == 3
        assert set(names) <= set(story.platform.use_case.inputs), "names, and no one's values"


def test_there_is_no_shadow_while_the_newest_model_serves(story: Story) -> None:
    assert story.shadow["weak"].empty
    assert story.shadow["superior"].empty
    assert "challenger_versions" not in story.metadata["superior"]


def test_the_shadow_is_what_the_newest_model_says_while_another_serves(story: Story) -> None:
    shadow, said = story.shadow["rolled back"], story.predictions["superior"]

    assert set(shadow["model_version"]) == {2}
    for name in ("application_id", "probability", "refer", "reasons", "data_version"):
        pd.testing.assert_series_equal(shadow[name], said[name])
    assert story.metadata["rolled back"]["challenger_versions"] == [2]


def test_the_shadow_names_first_the_rows_on_which_the_two_differ_most(story: Story) -> None:
    on = ["day", "application_id"]
    both = story.predictions["rolled back"].merge(story.shadow["rolled back"], on=on)
    apart = (both["probability_x"] - both["probability_y"]).abs()

    shown = story.metadata["rolled back"]["disagreements"]

    most = both.loc[apart.idxmax(), "application_id"]
    lines = shown.splitlines()
    assert most in lines[2]
    assert len(lines) == 2 + 10


def test_what_a_challenger_said_stands_when_it_is_champion_or_another_follows(
    story: Story,
) -> None:
    pd.testing.assert_frame_equal(story.shadow["next challenger"], story.shadow["rolled back"])


def test_no_row_of_the_history_ever_changes(story: Story) -> None:
    longest: list[Reign] = []
    for name, moment in story.moments.items():
        assert moment.history[: len(longest)] == longest, name
        longest = moment.history


def test_the_champion_table_and_the_alias_follow_the_history(story: Story) -> None:
    platform = story.platform

    serving = champion(platform.lake, platform.use_case)

    assert serving.version == story.moments["18th again"].alias
    assert serving.version == platform.table("champion", "2026-01-18")["version"][0]


def test_scoring_with_a_champion_whose_files_are_gone_names_the_last_that_loads(
    story: Story, tmp_path: Path
) -> None:
    platform = story.platform
    before = platform.table("predictions", SCORED)
    artifacts, cache = Path(platform.registry.artifacts), Path(platform.registry.cache)
    sha256 = champion(platform.lake, platform.use_case).sha256
    sound = tmp_path / "artifacts"
    shutil.copytree(artifacts, sound)
    shutil.rmtree(cache)
    version = platform.registry.version("claims", 5)
    shutil.rmtree(next(artifacts.rglob(version.run_id)) / "artifacts" / "model")
    try:
        with pytest.raises(RunFailed) as refused:
            platform.run("scoring", SCORED)
        with pytest.raises(RunFailed) as refused_gate:
            story.train("2026-01-18", only="champion")
        with pytest.raises(NoChampion, match="serves already"):
            story.promote(5)
    finally:
        shutil.rmtree(artifacts)
        shutil.copytree(sound, artifacts)

    assert version.sha256 == sha256
    assert "claims version 5" in str(refused.value)
    assert "last champion that loads is version 1: ml-assets promote 1" in str(refused.value)
    assert "claims version 5" in str(refused_gate.value)
    pd.testing.assert_frame_equal(platform.table("predictions", SCORED), before)
    assert story.history() == story.moments["18th again"].history
