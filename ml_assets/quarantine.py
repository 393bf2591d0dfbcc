"""Quarantine as people use it: what lies there and why, and which rows would pass now.

How a row gets there belongs in `ml_assets.assets.extraction`; moving rows out of it is a run of the
same asset, which `replay` asks for.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

import dagster as dg
import pandas as pd

from ml_assets.champions import history
from ml_assets.changes import TORN, extracted_fingerprints, recent, standing_per_day
from ml_assets.environment import Environment
from ml_assets.resources.lake import Lake
from ml_assets.runs import RunFailed, run_days
from ml_assets.schedules import keep_unchanged
from ml_assets.state import overtaken
from ml_assets.use_case import UseCase


@dataclass(frozen=True)
class Replayed:
    """What became of a day's quarantine.

    Attributes:
        day: The day.
        before: Rows that were in quarantine.
        after: Rows that still are.
        read_again: Whether the source had changed, so that it was read again.
        problem: Why the day's features could not follow; empty if they did.
    """

    day: str
    before: int
    after: int
    read_again: bool
    problem: str


def rows_aside(lake: Lake, use_case: UseCase, day: str | None = None) -> pd.DataFrame:
    """The rows in quarantine, of one day or of all, ordered by day.

    Raises:
        ValueError: There is no quarantine of this day.
    """
    table = f"{use_case.name}/quarantine"
    days = [each for each in sorted(lake.rows_per_day(table)) if day in (None, each)]
    if not days:
        raise _nothing(day)
    return lake.read(table, days[0], days[-1])


def days_to_replay(
    instance: dg.DagsterInstance,
    environment: Environment,
    use_case: UseCase,
    lake: Lake,
    day: str | None,
    now: datetime,
) -> list[str]:
    """The days with rows in quarantine, and those that a replay which died left half done.

    Whether one died is told by the tables, and by Dagster's records where it died between a commit
    and its record.

    Args:
        instance: Where the runs are recorded.
        environment: Its settings.
        use_case: Whose quarantine.
        lake: The tables.
        day: This day alone.
        now: The present instant.

    Raises:
        ValueError: There is no such day.
    """

    def rows(stage: str) -> dict[str, int]:
        return lake.rows_per_day(f"{use_case.name}/{stage}")

    raw, features = rows("raw"), rows("features")
    known = extracted_fingerprints(use_case, lake, environment, now)
    wanted = set(rows("quarantine"))
    wanted |= {each for each, found in known.items() if found == TORN}
    wanted |= {each for each in known if raw.get(each, 0) != features.get(each, 0)}
    wanted |= {*overtaken(instance, use_case, "features", known)}
    if history(lake, use_case):
        young = sorted(each for each in features if recent(each, environment, now))
        said = standing_per_day(use_case, lake, young[0], young[-1]) if young else {}
        scored = [each for each in young if each in said]
        wanted |= {each for each in scored if said[each] != features[each]}
        for stage in ("predictions", "shadow"):
            wanted |= {*overtaken(instance, use_case, stage, scored)}
    chosen = [each for each in sorted(wanted) if day in (None, each)]
    if not chosen:
        raise _nothing(day)
    return chosen


def summary(aside: pd.DataFrame) -> pd.DataFrame:
    """How many rows of a day lie in quarantine for which reason: day, reason, column, rows."""
    counted = aside.groupby(["day", "reason", "column"]).size().rename("rows")
    return counted.reset_index().sort_values(
        ["day", "rows"], ascending=[True, False], kind="stable", ignore_index=True
    )


def replay(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    environment: Environment,
    use_case: UseCase,
    lake: Lake,
    days: Iterable[str],
    *,
    changed: Iterable[str],
    now: datetime,
    on_day: Callable[[str], None],
) -> list[Replayed]:
    """Judge the rows of some days again, by the contract of now, and let features follow.

    A day whose source has changed is read again; of others, the stored rows are judged. Recent days
    are scored too, if somebody serves. Doing it again changes nothing.

    Args:
        definitions: The platform's jobs.
        instance: Where the runs are recorded.
        environment: Its settings.
        use_case: Whose quarantine.
        lake: The tables.
        days: The days to replay.
        changed: Days whose source differs from what was extracted.
        now: The present instant.
        on_day: Called with each day before it is replayed.
    """
    table, changed, serves = (
        f"{use_case.name}/quarantine",
        set(changed),
        bool(history(lake, use_case)),
    )
    before = lake.rows_per_day(table)
    done = []
    for day in days:
        on_day(day)
        scored = serves and recent(day, environment, now)
        ops = {f"{use_case.name}_extraction": {"config": {"replay": day not in changed}}}
        if scored:
            ops |= keep_unchanged(use_case)["ops"]
        problem = ""
        try:
            run_days(
                definitions,
                instance,
                f"{use_case.name}_{'scoring' if scored else 'ingestion'}",
                day,
                day,
                run_config={"ops": ops},
                because="replay",
            )
        except RunFailed as error:
            problem = str(error)
        after = lake.rows_per_day(table).get(day, 0)
        done.append(Replayed(day, before.get(day, 0), after, day in changed, problem))
    return done


def _nothing(day: str | None) -> ValueError:
    when = f" of {day}" if day else ""
    return ValueError(f"no row{when} is in quarantine: there is nothing to show or to replay.")
