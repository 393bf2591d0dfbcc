"""Contracts of the tables that look the same in every use case.

The raw and features tables, whose columns a use case declares, are in its own `schema.py`. Where a
column here is called `key`, the table carries the use case's own key column instead: see `keyed`.
"""

from typing import Annotated, get_args

import pandas as pd
import pandera.pandas as pa
from pandera.typing import Series

from ml_assets.core.gate import Rule

RULES = get_args(Rule)

Instant = Annotated[pd.DatetimeTZDtype, "us", "UTC"]

SECTIONS = ("inputs", "outputs", "volume", "outcomes", "weeks", "estimate")

# Trouble that a person should look at, then what is worth a second look, then what is not known.
TROUBLE = ("drift", "worse", "too few", "too many")
MONITORING_STATES = (
    *TROUBLE,
    "watch",
    "ok",
    "too few rows",
    "too little history",
    "not matured",
    "one class",
    "no rows",
    "no model",
    "not over",
    "unknown",
)

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
            "no_time_zone",
            "outside_days",
        ],
        description="Reason code",
    )
    column: Series[str] = pa.Field(description="Column that broke the contract")
    value: Series[str] = pa.Field(nullable=True, description="The value found there, as text")
    row: Series[str] = pa.Field(description="The whole row as it came, as JSON")
    origin: Series[str] = pa.Field(
        nullable=True, description="File and line that it came from, if it came in a file"
    )
    quarantined_at: Series[Instant] = pa.Field(description="When it was first put aside")
    run_id: Series[str] = pa.Field(description="Dagster's run whose extraction put it aside")


class Extraction(_Table):
    """The account of one day's extraction: every row read is kept, quarantined or dropped."""

    rows_read: Series[int] = pa.Field(ge=0, description="Rows that the source returned")
    rows_kept: Series[int] = pa.Field(ge=0, description="Rows that passed the contract")
    rows_quarantined: Series[int] = pa.Field(ge=0, description="Rows put into quarantine")
    duplicates_dropped: Series[int] = pa.Field(ge=0, description="Exact copies of another row")
    newest_updated_at: Series[Instant] = pa.Field(
        nullable=True, description="Newest change among the rows read; the watermark of the day"
    )
    fingerprint: Series[str] = pa.Field(
        description="The source's own fingerprint of the day when it was read; empty if no rows"
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


class Hyperparameters(_Table):
    """The outcome of a tuning: what models are trained with from this day on, and why."""

    decision: Series[str] = pa.Field(
        isin=["adopted", "kept"], description="Whether the tuned parameters replace those in use"
    )
    reason: Series[str] = pa.Field(description="The decision in words and numbers")
    parameters: Series[str] = pa.Field(
        description="What was decided for: XGBoost's parameters, as JSON"
    )
    metric: Series[str] = pa.Field(
        isin=["log_loss", "roc_auc"], description="What ranked the trials"
    )
    score: Series[float] = pa.Field(description="Best mean of that metric over the folds")
    trials: Series[int] = pa.Field(ge=1, description="Trials, including pruned and failed ones")
    pruned: Series[int] = pa.Field(ge=0, description="Trials that were given up after some folds")
    failed: Series[int] = pa.Field(ge=0, description="Trials whose score was not a number")
    judged_rows: Series[int] = pa.Field(ge=1, description="Rows that decided, unseen by the search")
    difference_low: Series[float] = pa.Field(
        description="Log loss of tuned minus XGBoost's defaults on them: lower bound"
    )
    difference_high: Series[float] = pa.Field(
        description="Log loss of tuned minus XGBoost's defaults on them: upper bound"
    )
    seed: Series[int] = pa.Field(ge=0, description="Seed of the search")
    code_version: Series[str] = pa.Field(description="Version of the code that tuned")
    content_hash: Series[str] = pa.Field(description="Hash of the training set tuned on")


class Model(_Table):
    """A trained model, registered as challenger, and how it did on the newest matured days."""

    version: Series[int] = pa.Field(ge=1, description="Version in the model registry")
    sha256: Series[str] = pa.Field(description="SHA-256 of the model bundle")
    content_hash: Series[str] = pa.Field(description="Hash of the training set it learned from")
    code_version: Series[str] = pa.Field(description="Version of the code that trained it")
    rounds: Series[int] = pa.Field(ge=1, description="Boosting rounds kept by early stopping")
    train_rows: Series[int] = pa.Field(ge=1, description="Rows it was fitted on")
    validation_rows: Series[int] = pa.Field(ge=1, description="Rows that stopped the fit")
    calibration_rows: Series[int] = pa.Field(ge=1, description="Rows that calibrated it")
    calibration: Series[str] = pa.Field(
        isin=["none", "platt", "beta", "isotonic"], description="How it is calibrated"
    )
    threshold: Series[float] = pa.Field(
        ge=0, le=1, description="Probability from which an application is referred"
    )
    holdout_rows: Series[int] = pa.Field(ge=1, description="Rows that only the evaluation saw")
    holdout_first_day: Series[str] = pa.Field(description="First day of the holdout")
    holdout_last_day: Series[str] = pa.Field(description="Last day of the holdout")
    roc_auc: Series[float] = pa.Field(ge=0, le=1, description="ROC AUC on the holdout")
    log_loss: Series[float] = pa.Field(ge=0, description="Log loss on the holdout, in nats")
    brier: Series[float] = pa.Field(ge=0, le=1, description="Brier score on the holdout")
    calibration_slope: Series[float] = pa.Field(
        nullable=True, description="Calibration slope on the holdout: 1 is right"
    )
    calibration_slope_low: Series[float] = pa.Field(
        nullable=True, description="Its lower 95 % bound"
    )
    calibration_slope_high: Series[float] = pa.Field(
        nullable=True, description="Its upper 95 % bound"
    )


class Champion(_Table):
    """Who serves from this day on, and why; one decision a day, never rewritten by later ones."""

    version: Series[int] = pa.Field(ge=1, description="Version that serves")
    sha256: Series[str] = pa.Field(description="SHA-256 of its bundle")
    decision: Series[str] = pa.Field(
        isin=["first", "promoted", "kept"], description="What the gate decided"
    )
    rule: Series[str] = pa.Field(isin=RULES, description="The rule that decided")
    reason: Series[str] = pa.Field(description="The decision in words and numbers")
    decided_at: Series[Instant] = pa.Field(description="When it was decided")
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


class ChampionHistory(_Table):
    """Who served, since when, and by which rule or whose hand; rows are only ever added."""

    at: Series[Instant] = pa.Field(description="Since when it serves")
    version: Series[int] = pa.Field(ge=1, description="Version that serves from then on")
    sha256: Series[str] = pa.Field(description="SHA-256 of its bundle")
    event: Series[str] = pa.Field(
        isin=["first", "promoted", "kept", "promoted_by_hand", "rolled_back"],
        description="What happened; `kept`: a decision made anew gave the champion its place back",
    )
    rule: Series[str] = pa.Field(isin=[*RULES, "hand"], description="The rule that decided")
    by: Series[str] = pa.Field(description="`gate`, or the user whose hand it was")
    reason: Series[str] = pa.Field(description="Why, in words")


class Predictions(_Table):
    """What we said about an application, and what we said it with."""

    key: Series[str] = pa.Field(description="Key of the application, unique in its day")
    received_at: Series[Instant] = pa.Field(description="When the application came in")
    probability: Series[float] = pa.Field(
        ge=0, le=1, description="Estimated probability of a positive outcome"
    )
    refer: Series[bool] = pa.Field(
        description="Whether the probability reaches the model's threshold"
    )
    reasons: Series[str] = pa.Field(
        description="What moved the raw score most, as JSON: feature, value, effect in log-odds"
    )
    model_version: Series[int] = pa.Field(ge=1, description="Registered model version")
    data_version: Series[str] = pa.Field(description="Hash of the inputs that were scored")
    code_version: Series[str] = pa.Field(description="Version of the code that scored")
    scored_at: Series[Instant] = pa.Field(description="When it was scored")
    superseded_at: Series[Instant] = pa.Field(
        nullable=True, description="When another took its place; missing while it stands"
    )


class Monitoring(_Table):
    """What a day's look at inputs, outputs and outcomes found; a row per subject and measure."""

    section: Series[str] = pa.Field(isin=SECTIONS, description="What is looked at")
    subject: Series[str] = pa.Field(
        description="A feature, `probability`, `applications`, a week by its Monday, or a model in "
        "its role, such as `champion 3`; `all` where nothing could be looked at"
    )
    measure: Series[str] = pa.Field(
        description="What was measured, such as psi or roc_auc; unique in its day, section and "
        "subject. `_promised` is the same on the model's holdout, `_estimated` what the stored "
        "estimate had said before outcomes were known"
    )
    value: Series[float] = pa.Field(nullable=True, description="The figure; missing if undefined")
    low: Series[float] = pa.Field(
        nullable=True, description="Lower bound: of the 95 % interval, or of what is normal"
    )
    high: Series[float] = pa.Field(nullable=True, description="Upper bound likewise")
    rows: Series[int] = pa.Field(ge=0, description="Applications that it rests on")
    state: Series[str] = pa.Field(
        nullable=True,
        isin=MONITORING_STATES,
        description="What to make of the subject; on the measure that decides, else missing",
    )
    since: Series[str] = pa.Field(
        nullable=True,
        str_matches=r"^\d{4}-\d{2}-\d{2}$",
        description="First day of the present run of trouble",
    )
    sentence: Series[str] = pa.Field(
        nullable=True, description="The state in words, for a data scientist"
    )


class Maintenance(_Table):
    """What a clean-up of the use case's tables found and left; a row per table."""

    table: Series[str] = pa.Field(description="The table, such as claims/raw; unique in its day")
    bytes_before: Series[int] = pa.Field(ge=0, description="Size of its folder before, in bytes")
    bytes_after: Series[int] = pa.Field(ge=0, description="Size of its folder after, in bytes")
    files_before: Series[int] = pa.Field(ge=0, description="Files with rows before")
    files_after: Series[int] = pa.Field(ge=0, description="Files with rows after")
    versions_kept: Series[int] = pa.Field(
        ge=0, description="Versions before the oldest readable one, kept for registered models"
    )
    oldest_readable: Series[int] = pa.Field(
        ge=0, description="From this version on, every version of the table can be read"
    )


class Landing(_Table):
    """The landing folder's ledger: a line per file that came; lines are only ever added."""

    day: Series[str] = pa.Field(
        str_matches=r"^\d{4}-\d{2}-\d{2}$", description="Local day on which the file was taken"
    )
    number: Series[int] = pa.Field(ge=1, description="Place in the order in which files were taken")
    path: Series[str] = pa.Field(description="Where the file lay, below the landing folder")
    outcome: Series[str] = pa.Field(
        isin=["taken", "repeated", "rejected"],
        description="Whether its rows count from now on, or it changed nothing, or is unreadable",
    )
    reason: Series[str] = pa.Field(
        description="Why it was rejected, or what it repeats; else empty"
    )
    sha256: Series[str] = pa.Field(
        str_matches=r"^[0-9a-f]{64}$", description="SHA-256 of the file as it came"
    )
    bytes: Series[int] = pa.Field(ge=0, description="Its size as it came")
    rows: Series[int] = pa.Field(ge=0, description="Its rows; 0 if it was rejected")
    days: Series[str] = pa.Field(description="Its rows by the day they are counted in, as JSON")
    columns: Series[str] = pa.Field(description="Its column names, as JSON")
    first_day: Series[str] = pa.Field(
        str_matches=r"^\d{4}-\d{2}-\d{2}$",
        description="Rows received before this day are counted in the day the file was taken",
    )
    modified_at: Series[Instant] = pa.Field(description="When the file says it was last written")
    taken_at: Series[Instant] = pa.Field(description="When it was taken")


def keyed(table: type[pa.DataFrameModel], key: str) -> pa.DataFrameSchema:
    """The contract of `table` with its `key` column under the use case's own name."""
    return table.to_schema().rename_columns({"key": key})
