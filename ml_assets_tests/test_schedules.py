"""The daily and weekly schedules ask for yesterday, in the configured time zone."""

from datetime import datetime
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from ml_assets.schedules import keep_unchanged
from ml_assets_tests.conftest import SMALL, Platform

LONDON = ZoneInfo("Europe/London")


def tick(platform: Platform, name: str, at: datetime) -> dg.RunRequest:
    repository = platform.definitions.get_repository_def()
    with dg.build_schedule_context(
        instance=platform.instance, scheduled_execution_time=at, repository_def=repository
    ) as context:
        data = repository.get_schedule_def(name).evaluate_tick(context)
    assert data.run_requests
    (request,) = data.run_requests
    return request


@pytest.mark.parametrize(
    ("at", "day"),
    [
        (datetime(2026, 1, 20, 6, 15, tzinfo=LONDON), "2026-01-19"),
        # The clocks went forward the night before, and back.
        (datetime(2026, 3, 29, 6, 15, tzinfo=LONDON), "2026-03-28"),
        (datetime(2026, 10, 25, 6, 15, tzinfo=LONDON), "2026-10-24"),
        # Half past midnight in London is the day before in UTC.
        (datetime(2026, 7, 1, 0, 30, tzinfo=LONDON), "2026-06-30"),
    ],
)
def test_scoring_asks_for_yesterday(platform: Platform, at: datetime, day: str) -> None:
    request = tick(platform, "claims_scoring_daily", at)

    assert request.partition_key == day
    assert request.run_config == keep_unchanged(SMALL)


def test_training_asks_for_yesterday(platform: Platform) -> None:
    request = tick(platform, "claims_training_daily", datetime(2026, 1, 20, 1, 30, tzinfo=LONDON))

    assert request.partition_key == "2026-01-19"


def test_tuning_asks_for_yesterday_once_a_week_before_that_nights_training(
    platform: Platform,
) -> None:
    repository = platform.definitions.get_repository_def()
    schedule = repository.get_schedule_def("claims_tuning_weekly")
    sunday = datetime(2026, 1, 18, 0, 30, tzinfo=LONDON)

    assert schedule.cron_schedule == "30 0 * * sun"
    assert schedule.execution_timezone == "Europe/London"
    assert tick(platform, "claims_tuning_weekly", sunday).partition_key == "2026-01-17"


def test_times_and_zone_come_from_the_environment(platform: Platform) -> None:
    repository = platform.definitions.get_repository_def()
    schedule = repository.get_schedule_def("claims_scoring_daily")

    assert schedule.cron_schedule == "15 6 * * *"
    assert schedule.execution_timezone == "Europe/London"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def test_an_environment_without_schedules_has_none(platform: Platform) -> None:
    off = platform.environment.schedules.model_copy(update={"enabled": False})
    environment = platform.environment.model_copy(update={"schedules": off})

    other = Platform(environment, platform.instance, SMALL)

    assert list(other.definitions.get_repository_def().schedule_defs) == []


def test_before_the_start_date_there_is_nothing_to_ask_for(platform: Platform) -> None:
    repository = platform.definitions.get_repository_def()
    at = datetime(2026, 1, 1, 6, 15, tzinfo=LONDON)
    with dg.build_schedule_context(scheduled_execution_time=at) as context:
        data = repository.get_schedule_def("claims_scoring_daily").evaluate_tick(context)

    assert data.run_requests == []
    assert "starts on 2026-01-01" in str(data.skip_message)
