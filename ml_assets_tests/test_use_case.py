import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandera.pandas as pa
import pytest
from pandera.typing import Series

from ml_assets.core.threshold import Costs
from ml_assets.use_case import DAY, columns
from ml_assets.use_cases.claims.schema import ClaimsFeatures, ClaimsRaw
from ml_assets.use_cases.claims.simulator import TABLE_COLUMNS
from ml_assets.use_cases.claims.use_case import CLAIMS


class WithoutAge(ClaimsFeatures):
    @classmethod
    def to_schema(cls) -> pa.DataFrameSchema:
        return ClaimsFeatures.to_schema().remove_columns(["age"])


class WithExtra(ClaimsFeatures):
    shoe_size: Series[int]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropped": {**CLAIMS.dropped, "shoe_size": "why"}}, "dropped columns not in raw"),
        ({"dropped": {}}, "they differ in ['employment_type', 'family_history_3']"),
        ({"features": WithoutAge}, "features must be raw without dropped; they differ in ['age']"),
        ({"features": WithExtra}, "they differ in ['shoe_size']"),
        ({"key": "policy"}, "column 'policy' is not in the features contract"),
        ({"received_at": "seen_at"}, "column 'seen_at' is not in the features contract"),
        ({"updated_at": "touched_at"}, "column 'touched_at' is not in the features contract"),
        ({"target": "employment_type"}, "column 'employment_type' is not in the features contract"),
        (
            {"categorical": ("gender", "shoe_size", "claim_status")},
            "categorical columns not among the inputs: ['claim_status', 'shoe_size']",
        ),
        (
            {"slices": {"age": (30,), "shoe_size": None}},
            "slices of columns not in the features contract: ['shoe_size']",
        ),
        ({"label_maturity_days": -1}, "label_maturity_days must not be negative"),
        ({"training_window_days": 0}, "training_window_days must be at least 1"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(
    changes: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        replace(CLAIMS, **changes)

    assert str(refused.value).startswith("use case: ")


def test_an_outcome_that_is_known_at_once_and_a_window_of_one_day_are_allowed() -> None:
    changed = replace(CLAIMS, label_maturity_days=0, training_window_days=1)

    assert (changed.label_maturity_days, changed.training_window_days) == (0, 1)


@pytest.mark.parametrize(
    ("missed_claim", "needless_referral", "named"),
    [(0, 1, "missed_claim"), (1, -1, "needless_referral"), (float("nan"), 1, "missed_claim")],
)
def test_costs_under_which_one_error_is_free_are_refused(
    missed_claim: float, needless_referral: float, named: str
) -> None:
    with pytest.raises(ValueError, match=rf"costs: {named} must be a finite number above 0"):
        Costs(missed_claim, needless_referral)


def test_purpose_and_limits_say_enough_for_a_model_card() -> None:
    assert "not for" in CLAIMS.purpose
    assert len(CLAIMS.limits) >= 3
    assert all(len(limit) > 40 and limit.endswith(".") for limit in CLAIMS.limits)
    assert f"{CLAIMS.label_maturity_days} days" in " ".join(CLAIMS.limits)


def test_slices_are_features_with_rising_bands() -> None:
    assert set(CLAIMS.slices) <= set(columns(ClaimsFeatures))
    for edges in CLAIMS.slices.values():
        assert edges is None or list(edges) == sorted(set(edges))


@pytest.mark.parametrize("day", range(5, 10))
def test_weekdays_have_the_weekday_volume(day: int) -> None:
    assert CLAIMS.volume(date(2026, 1, day)) == CLAIMS.weekday_volume


@pytest.mark.parametrize("day", [10, 11])
def test_saturday_and_sunday_have_the_weekend_volume(day: int) -> None:
    assert CLAIMS.volume(date(2026, 1, day)) == CLAIMS.weekend_volume


def test_the_model_sees_every_raw_column_but_key_times_outcome_and_dropped() -> None:
    unseen = {DAY, "application_id", "received_at", "updated_at", "claim_status"}
    unseen |= {"family_history_3", "employment_type"}

    assert set(CLAIMS.inputs) == set(columns(ClaimsRaw)) - unseen
    assert len(CLAIMS.inputs) == len(set(CLAIMS.inputs)) == 38


def test_the_inputs_keep_the_order_of_the_contract() -> None:
    order = columns(ClaimsFeatures)

    assert list(CLAIMS.inputs) == sorted(CLAIMS.inputs, key=order.index)


def test_every_input_of_text_is_categorical() -> None:
    schema = ClaimsFeatures.to_schema()
    text = {name for name in CLAIMS.inputs if str(schema.columns[name].dtype) == "str"}

    assert text
    assert text <= set(CLAIMS.categorical)


def test_the_query_returns_exactly_the_columns_of_the_contract() -> None:
    import duckdb

    names = ", ".join(f'"{name}" {type_}' for name, type_ in TABLE_COLUMNS.items())
    with duckdb.connect() as connection:
        connection.execute(f"CREATE SCHEMA claims; CREATE TABLE claims.ds_dataset ({names})")
        instant = datetime(2026, 1, 1, tzinfo=UTC)
        result = connection.execute(
            CLAIMS.query.replace(":start", "$start").replace(":end", "$end"),
            {"start": instant, "end": instant},
        )
        returned = [column[0] for column in result.description]

    assert sorted([DAY, *returned]) == sorted(columns(ClaimsRaw))


def test_every_column_of_the_contract_says_what_it_means() -> None:
    schema = ClaimsRaw.to_schema()

    assert [name for name, column in schema.columns.items() if not column.description] == []


def test_the_query_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "other.sql"
    file.write_text("SELECT 'é'", encoding="utf-8")

    assert replace(CLAIMS, query_file=file).query == "SELECT 'é'"
