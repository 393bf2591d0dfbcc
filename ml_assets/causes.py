"""Why a run runs, in one word, for the notes in the tables' history."""

from collections.abc import Mapping

from ml_assets.runs import CAUSE_TAG

# In this order: a backfill that a schedule asked for is the schedule's.
_BY_TAG = (
    ("dagster/schedule_name", "schedule"),
    ("dagster/sensor_name", "sensor"),
    ("dagster/backfill", "backfill"),
)


def cause_of(tags: Mapping[str, str]) -> str:
    """What asked for a run, by its tags: what the asker says itself, or else what Dagster knows.

    A run without any such tag was started by hand in the UI.
    """
    if CAUSE_TAG in tags:
        return tags[CAUSE_TAG]
    return next((cause for tag, cause in _BY_TAG if tag in tags), "hand")
