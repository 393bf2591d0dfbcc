"""What a use case declares, once and typed; the asset builders need nothing else.

Where tables lie and how the platform runs belongs in `ml_assets.environment`; how assets are made
belongs in `ml_assets.assets`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

import pandera.pandas as pa

from ml_assets.core.threshold import Costs

DAY = "day"  # the daily partition of a row, as YYYY-MM-DD: first column of every table


@dataclass(frozen=True)
class UseCase:
    """A tabular binary classification that is trained and scored daily.

    Attributes:
        name: Prefix of the asset keys, and name of the group and of the registered model.
        description: One sentence for the UI.
        purpose: What its probabilities are for, and what they are not for, for the model card.
        limits: What a reader of a probability must know, a sentence each.
        owners: Who answers for it: e-mail addresses, or `team:name`.
        query_file: The `.sql` file that reads the raw rows of `[:start, :end)`.
        raw: Contract of the raw rows.
        features: Contract of the cleaned rows that the model sees: `raw` without `dropped`.
        key: Column that names a row, unique within a day.
        received_at: Column of the instant that decides a row's day.
        updated_at: Column of the instant at which the source last changed the row.
        target: Column with the outcome: 0, 1, or missing until it is known.
        dropped: Raw columns that no model sees, each with the reason.
        categorical: Feature columns whose values are names, not amounts.
        slices: Columns by whose values the model is also judged, each with the lower edges of its
            bands, or None to take each value as it is.
        costs: What a missed positive and a needless referral cost.
        label_maturity_days: Age at which a row's outcome is final.
        training_window_days: Number of matured days that a model learns from, at most.
        start_date: First day of the platform's partitions.
        weekday_volume: Fewest and most rows that are normal from Monday to Friday.
        weekend_volume: Fewest and most rows that are normal on Saturday and Sunday.
    """

    name: str
    description: str
    purpose: str
    limits: tuple[str, ...]
    owners: tuple[str, ...]
    query_file: Path
    raw: type[pa.DataFrameModel]
    features: type[pa.DataFrameModel]
    key: str
    received_at: str
    updated_at: str
    target: str
    dropped: Mapping[str, str]
    categorical: tuple[str, ...]
    slices: Mapping[str, Sequence[float] | None]
    costs: Costs
    label_maturity_days: int
    training_window_days: int
    start_date: date
    weekday_volume: tuple[int, int]
    weekend_volume: tuple[int, int]

    def __post_init__(self) -> None:
        """Refuse a declaration that contradicts itself, at import rather than at night."""
        raw, features = columns(self.raw), columns(self.features)
        _require(
            not set(self.dropped) - set(raw), f"dropped columns not in raw: {self.dropped.keys()}"
        )
        kept = [column for column in raw if column not in self.dropped]
        _require(
            sorted(features) == sorted(kept),
            f"features must be raw without dropped; they differ in "
            f"{sorted(set(features) ^ set(kept))}",
        )
        for column in (DAY, self.key, self.received_at, self.updated_at, self.target):
            _require(column in features, f"column {column!r} is not in the features contract")
        unknown = set(self.categorical) - set(self.inputs)
        _require(not unknown, f"categorical columns not among the inputs: {sorted(unknown)}")
        unknown = set(self.slices) - set(features)
        _require(not unknown, f"slices of columns not in the features contract: {sorted(unknown)}")
        _require(self.label_maturity_days >= 0, "label_maturity_days must not be negative")
        _require(self.training_window_days >= 1, "training_window_days must be at least 1")

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The columns that the model sees, in the order of the contract."""
        not_seen = {DAY, self.key, self.received_at, self.updated_at, self.target}
        return tuple(column for column in columns(self.features) if column not in not_seen)

    @cached_property
    def query(self) -> str:
        """The text of the source query."""
        return self.query_file.read_text(encoding="utf-8")

    def volume(self, day: date) -> tuple[int, int]:
        """The fewest and most rows that are normal on this day."""
        return self.weekend_volume if day.weekday() >= 5 else self.weekday_volume


def columns(model: type[pa.DataFrameModel]) -> list[str]:
    """The column names of a contract, in order."""
    return list(model.to_schema().columns)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"use case: {message}")
