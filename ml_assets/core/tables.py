"""Contracts of the tables that look the same in every use case.

The raw and features tables, whose columns a use case declares, are in its own `schema.py`. Where a
column here is called `key`, the table carries the use case's own key column instead: see `keyed`.
"""

from typing import Annotated

import pandas as pd
import pandera.pandas as pa
from pandera.typing import Series

Instant = Annotated[pd.DatetimeTZDtype, "us", "UTC"]

_DAY = pa.Field(
    str_matches=r"^\d{4}-\d{2}-\d{2}$", description="Local day, YYYY-MM-DD: the partition"
)


class _Table(pa.DataFrameModel):
    day: Series[str] = _DAY

    class Config:
        """Nothing but the declared columns, in any order."""

        strict = True


class Quarantine(_Table):
    """A row that broke the contract; one line per source row, with the first thing wrong."""

    key: Series[str] = pa.Field(nullable=True, description="Key of the row, if it has one")
    reason: Series[str] = pa.Field(
        isin=[
            "missing_key",
            "missing_value",
            "wrong_type",
            "out_of_range",
            "unknown_category",
            "duplicate_key",
        ],
        description="Reason code",
    )
    column: Series[str] = pa.Field(description="Column that broke the contract")
    value: Series[str] = pa.Field(nullable=True, description="The value found there, as text")
    row: Series[str] = pa.Field(description="The whole row as it came, as JSON")


class Extraction(_Table):
    """The account of one day's extraction: every row read is kept, quarantined or dropped."""

    rows_read: Series[int] = pa.Field(ge=0, description="Rows that the source returned")
    rows_kept: Series[int] = pa.Field(ge=0, description="Rows that passed the contract")
    rows_quarantined: Series[int] = pa.Field(ge=0, description="Rows put into quarantine")
    duplicates_dropped: Series[int] = pa.Field(ge=0, description="Exact copies of another row")
    newest_updated_at: Series[Instant] = pa.Field(
        nullable=True, description="Newest change among the rows read; the watermark of the day"
    )


class TrainingSet(_Table):
    """A manifest: which rows a model learns from and is judged on, without a copy of them."""

    table_version: Series[int] = pa.Field(ge=0, description="Version of the features table")
    first_day: Series[str] = pa.Field(description="First day of the window")
    last_day: Series[str] = pa.Field(description="Last day of the window: the newest matured one")
    rows: Series[int] = pa.Field(ge=1, description="Rows with a known outcome")
    rows_unlabelled: Series[int] = pa.Field(ge=0, description="Matured rows without an outcome")
    positives: Series[int] = pa.Field(ge=0, description="Rows that turned out positive")
    content_hash: Series[str] = pa.Field(description="SHA-256 over the rows with known outcomes")


class Model(_Table):
    """A trained model, registered as challenger, and how it did on the newest matured days."""

    version: Series[int] = pa.Field(ge=1, description="Version in the model registry")
    sha256: Series[str] = pa.Field(description="SHA-256 of the model bundle")
    content_hash: Series[str] = pa.Field(description="Hash of the training set it learned from")
    code_version: Series[str] = pa.Field(description="Version of the code that trained it")
    rounds: Series[int] = pa.Field(ge=1, description="Boosting rounds kept by early stopping")
    train_rows: Series[int] = pa.Field(ge=1, description="Rows it was fitted on")
    validation_rows: Series[int] = pa.Field(ge=1, description="Rows that stopped the fit")
    holdout_rows: Series[int] = pa.Field(ge=1, description="Rows that only the evaluation saw")
    holdout_first_day: Series[str] = pa.Field(description="First day of the holdout")
    holdout_last_day: Series[str] = pa.Field(description="Last day of the holdout")
    roc_auc: Series[float] = pa.Field(ge=0, le=1, description="ROC AUC on the holdout")
    log_loss: Series[float] = pa.Field(ge=0, description="Log loss on the holdout, in nats")


class Champion(_Table):
    """Who serves from this day on, and why; one decision a day, never rewritten by later ones."""

    version: Series[int] = pa.Field(ge=1, description="Version that serves")
    sha256: Series[str] = pa.Field(description="SHA-256 of its bundle")
    decision: Series[str] = pa.Field(
        isin=["first", "promoted", "kept"], description="What the gate decided"
    )
    rule: Series[str] = pa.Field(
        isin=["first", "superior", "routine_refresh", "not_shown"],
        description="The rule that decided",
    )
    reason: Series[str] = pa.Field(description="The decision in words and numbers")
    challenger_version: Series[int] = pa.Field(ge=1, description="Version that was judged")
    challenger_log_loss: Series[float] = pa.Field(ge=0, description="Its log loss on the holdout")
    previous_version: Series[pd.Int64Dtype] = pa.Field(
        nullable=True, description="Version that served before"
    )
    previous_log_loss: Series[float] = pa.Field(
        nullable=True, ge=0, description="Its log loss on the same holdout"
    )
    difference_low: Series[float] = pa.Field(
        nullable=True, description="Log loss of challenger minus previous: lower bound"
    )
    difference_high: Series[float] = pa.Field(
        nullable=True, description="Log loss of challenger minus previous: upper bound"
    )


class Predictions(_Table):
    """What we said about an application, and what we said it with."""

    key: Series[str] = pa.Field(description="Key of the application, unique in its day")
    received_at: Series[Instant] = pa.Field(description="When the application came in")
    probability: Series[float] = pa.Field(
        ge=0, le=1, description="Estimated probability of a positive outcome"
    )
    model_version: Series[int] = pa.Field(ge=1, description="Registered model version")
    data_version: Series[str] = pa.Field(description="Hash of the inputs that were scored")
    code_version: Series[str] = pa.Field(description="Version of the code that scored")
    scored_at: Series[Instant] = pa.Field(description="When it was scored")


def keyed(table: type[pa.DataFrameModel], key: str) -> pa.DataFrameSchema:
    """The contract of `table` with its `key` column under the use case's own name."""
    return table.to_schema().rename_columns({"key": key})
