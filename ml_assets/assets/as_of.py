"""What assets look up in the tables as of a day, by the record alone: the newest row up to it."""

import json
from collections.abc import Mapping

from ml_assets.environment import TrainingSettings
from ml_assets.resources.lake import Lake
from ml_assets.use_case import UseCase


def hyperparameters_as_of(
    lake: Lake, use_case: UseCase, day: str, settings: TrainingSettings
) -> tuple[Mapping[str, int | float | str], str]:
    """The parameters that a model of this day is to be trained with, and where they come from.

    They are those that tuning adopted last, up to this day; until it adopts any, those of the
    configuration.

    Args:
        lake: Where the decisions of tuning lie.
        use_case: Whose parameters.
        day: Later decisions are not read.
        settings: The configuration.

    Returns:
        XGBoost's parameters, and their origin in words.
    """
    table = f"{use_case.name}/hyperparameters"
    days = [known for known in lake.rows_per_day(table) if known <= day]
    if days:
        decided = lake.read(table, min(days), max(days))
        adopted = decided[decided["decision"] == "adopted"]
        if len(adopted):
            newest = adopted.sort_values("day").iloc[-1]
            return json.loads(newest["parameters"]), f"{table} of {newest['day']}"
    return settings.parameters, "the configuration (training.parameters)"
