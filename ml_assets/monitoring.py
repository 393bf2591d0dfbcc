"""Looks at a use case's days: inputs, outputs, volume, outcomes, and estimates before outcomes.

Gathers what the tables and the registry hold, and lays out what `core.drift`, `core.monitoring` and
`core.performance` make of it as rows of `core.tables.Monitoring`. The asset is in
`ml_assets.assets.monitoring`, its page in `ml_assets.report.monitoring`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from ml_assets.champions import NoChampion, champion
from ml_assets.core.bundle import predict
from ml_assets.core.calibration import rounded
from ml_assets.core.drift import measure, reference
from ml_assets.core.evaluation import Evaluation
from ml_assets.core.metrics import Interval, expected_positives, wilson
from ml_assets.core.monitoring import Limits, decide, volume
from ml_assets.core.performance import (
    beside_promise,
    estimated,
    first_said,
    realised,
    weekly,
)
from ml_assets.core.tables import TROUBLE, Monitoring
from ml_assets.environment import Environment
from ml_assets.partitions import day_end, days_between
from ml_assets.resources.lake import Lake, LakeError
from ml_assets.resources.registry import Registry, RegistryError
from ml_assets.use_case import UseCase

Row: TypeAlias = dict[str, Any]

PROBABILITY = "probability"
ALL = "all"

# Days whose measures are looked at with a day's own, to tell since when something is so.
_HISTORY = 28
_PER_FEATURE = (
    "psi_by_chance",
    "statistic",
    "p_value",
    "missing_share",
    "missing_share_trained",
    "unseen_share",
)
_UNDEFINED: Interval = (None, None, None)


@dataclass(frozen=True)
class _Promise:
    """What is known of a model from the time when it was made.

    Attributes:
        inputs: How the rows that it was fitted on are distributed: see `core.drift.reference`.
        train_rows: How many they were.
        outputs: Likewise for its probabilities on the holdout; None if those rows are gone.
        holdout_rows: How many they are.
        threshold: Probability from which an application is referred.
        metrics: Figures on the holdout, with intervals.
    """

    inputs: Mapping[str, Any]
    train_rows: int
    outputs: Mapping[str, Any] | None
    holdout_rows: int
    threshold: float
    metrics: Mapping[str, Interval]


@dataclass(frozen=True)
class _Doors:
    use_case: UseCase
    environment: Environment
    lake: Lake
    registry: Registry
    promises: dict[int, _Promise | str] = field(default_factory=dict)
    measured: dict[tuple[str, int, str], pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class _Tables:
    """All that the looks at some days rest on.

    Attributes:
        inputs: Feature rows of each day, those of days before among them.
        said: First word about each application, by role: `champion`, `challenger`.
        in_time: Those of it that were said before the outcome was final.
        outcomes: Day, key and target of applications whose outcome is known.
        volumes: Rows read, per day that was extracted.
        earlier: Rows of the monitoring table that the looks compare with, by day.
    """

    inputs: Mapping[str, pd.DataFrame]
    said: Mapping[str, pd.DataFrame]
    in_time: Mapping[str, pd.DataFrame]
    outcomes: pd.DataFrame
    volumes: Mapping[str, int]
    earlier: dict[str, pd.DataFrame]


def look(
    use_case: UseCase,
    environment: Environment,
    lake: Lake,
    registry: Registry,
    days: Sequence[str],
    *,
    today: str,
) -> pd.DataFrame:
    """What is to be said of some consecutive days, oldest first, as `core.tables.Monitoring`.

    Each day is judged by what was known on its evening: a range of days gives the same rows as day
    after day.

    Args:
        use_case: Whose days.
        environment: Its limits.
        lake: Its tables.
        registry: Its models.
        days: The days, in order, without gaps.
        today: A day whose applications are still coming in; its volume is not judged.

    Raises:
        LakeError: A table cannot be read.
    """
    doors = _Doors(use_case, environment, lake, registry)
    tables = _read(doors, days)
    found = []
    for day in days:
        rows = [
            *_inputs(doors, tables, day),
            *_outputs(doors, tables, day),
            *_volume(doors, tables, day, today),
            *_outcomes(doors, tables, day),
            *_weeks(doors, tables, day),
            *_estimate(doors, tables, day),
        ]
        frame = _as_table(_since(rows, tables.earlier.get(_before(day, 1)), day), day)
        tables.earlier[day] = frame
        found.append(frame)
    return pd.concat(found, ignore_index=True)


def trouble(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that a person should look at."""
    return frame[frame["state"].isin(TROUBLE)]


def remedies(use_case: UseCase) -> dict[str, str]:
    """What to do about trouble, by section."""
    training = f"{use_case.name}_training"
    return {
        "inputs": "Ask the source whether the change is real. If it is an error, have the days "
        f"delivered again; if it is real, run {training} once outcomes of such days have matured.",
        "outputs": "If inputs drifted too, mend those first. If not, look at the newest promotion, "
        "and roll back by `ml-assets rollback --because TEXT` if it is at fault.",
        "volume": "Ask the source whether it delivered all; days that are delivered later are read "
        "and scored by themselves.",
        "positives": f"Run {training} so that the gate can judge a newer model; if the newest "
        "promotion is at fault, go back by `ml-assets rollback --because TEXT`.",
        "outcomes": f"Run {training} so that the gate can judge a newer model, and until then tell "
        "those who act on the probabilities; or go back to the version before by "
        "`ml-assets rollback --because TEXT`.",
    }


# What is read


def _read(doors: _Doors, days: Sequence[str]) -> _Tables:
    use_case, settings = doors.use_case, doors.environment.monitoring
    maturity, key, target = use_case.label_maturity_days, use_case.key, use_case.target
    back = maturity + max(settings.performance.days, 7 * settings.performance.weeks + 6)
    oldest, last = _before(days[0], back), days[-1]
    columns = ["day", key, "probability", "refer", "model_version", "scored_at"]
    final = {
        day: pd.Timestamp(
            day_end(date.fromisoformat(day) + timedelta(days=maturity), doors.environment.zone)
        )
        for day in days_between(oldest, last)
    }
    said, in_time = {}, {}
    for role, stage in (("champion", "predictions"), ("challenger", "shadow")):
        rows = _days_of(doors, stage, oldest, last, columns)
        said[role] = first_said(rows, key)
        in_time[role] = first_said(rows, key, final)
    inputs = _days_of(
        doors, "features", _before(days[0], _HISTORY), last, ["day", *use_case.inputs]
    )
    outcomes = _days_of(doors, "features", oldest, _before(last, maturity), ["day", key, target])
    weeks = 7 * settings.limits.volume_weeks
    accounts = _days_of(doors, "extraction", _before(days[0], weeks), last, ["day", "rows_read"])
    # Of the days before: yesterday's states, and the estimates that have matured now.
    stored = _days_of(
        doors,
        "monitoring",
        _before(days[0], max(maturity, 1)),
        _before(days[0], 1),
        list(Monitoring.to_schema().columns),
    )
    return _Tables(
        inputs=dict(list(inputs.groupby("day"))),
        said=said,
        in_time=in_time,
        outcomes=outcomes.dropna(subset=[target]),
        volumes=dict(zip(accounts["day"], map(int, accounts["rows_read"]), strict=True)),
        earlier=dict(list(stored.groupby("day"))),
    )


def _days_of(doors: _Doors, stage: str, first: str, last: str, columns: list[str]) -> pd.DataFrame:
    """The days of a table; no rows if there is no such table yet."""
    table = f"{doors.use_case.name}/{stage}"
    if doors.lake.version(table) is None:
        empty = {name: pd.Series(dtype=object) for name in columns}
        if "scored_at" in columns:
            empty["scored_at"] = pd.Series(dtype="datetime64[us, UTC]")
        return pd.DataFrame(empty)
    return doors.lake.read(table, first, last, columns=columns)


def _promise(doors: _Doors, version: int) -> _Promise | str:
    """What a version promised, or why that is not known."""
    if version not in doors.promises:
        try:
            doors.promises[version] = _load_promise(doors, version)
        except (RegistryError, LakeError) as error:
            doors.promises[version] = f"what version {version} was made from is not known: {error}"
        except (ValueError, KeyError) as error:
            # Of a release whose files had another shape: the other looks go on without it.
            doors.promises[version] = (
                f"what version {version} promised cannot be read by this release "
                f"({type(error).__name__})"
            )
    return doors.promises[version]


def _load_promise(doors: _Doors, version: int) -> _Promise:
    use_case, registry = doors.use_case, doors.registry
    sha256 = registry.version(use_case.name, version).sha256
    bundle = registry.load(use_case.name, version, sha256)
    evaluation = Evaluation.model_validate_json(
        registry.artifact(use_case.name, version, "evaluation.json")
    )
    days = bundle.facts["split"]["holdout"]
    columns = ["day", *use_case.inputs, use_case.target]
    there = _days_of(doors, "features", days[0], days[-1], columns)
    holdout = there.dropna(subset=[use_case.target])
    outputs = None
    if len(holdout):
        probability = predict(bundle, holdout, doors.environment.training.threads)
        outputs = reference(pd.DataFrame({PROBABILITY: probability}), [PROBABILITY], [])
    return _Promise(
        inputs=json.loads(registry.artifact(use_case.name, version, "reference.json")),
        train_rows=bundle.facts["train_rows"],
        outputs=outputs,
        holdout_rows=len(holdout),
        threshold=bundle.threshold,
        metrics={
            name: (one.value, one.low, one.high)
            for name, one in evaluation.parts["holdout"].metrics.items()
        },
    )


# What is said of it


def _inputs(doors: _Doors, tables: _Tables, day: str) -> list[Row]:
    rows = len(tables.inputs.get(day, ()))
    found = _model_of(doors, tables, day, "inputs", rows)
    if isinstance(found, dict):
        return [found]
    version, promise = found
    past = {
        one: tables.inputs[one]
        for one in days_between(_before(day, _HISTORY), day)
        if one in tables.inputs
    }
    return _moved(doors, "inputs", promise.inputs, promise.train_rows, version, past, day)


def _outputs(doors: _Doors, tables: _Tables, day: str) -> list[Row]:
    said = tables.said["champion"]
    here = said[said["day"] == day]
    found = _model_of(doors, tables, day, "outputs", len(here))
    if isinstance(found, dict):
        return [found]
    version, promise = found
    own = said[said["model_version"] == version]
    here = own[own["day"] == day]
    past = {one: rows for one, rows in own.groupby("day") if _before(day, _HISTORY) <= one <= day}
    if promise.outputs is None:
        moved = [
            _row(
                "outputs",
                PROBABILITY,
                "psi",
                rows=len(here),
                state="unknown",
                sentence=f"The holdout of version {version} is gone from the features.",
            )
        ]
    else:
        moved = _moved(doors, "outputs", promise.outputs, promise.holdout_rows, version, past, day)
    probability = here["probability"].to_numpy(dtype=np.float64)
    expected, low, high = expected_positives(probability)
    referred = int(here["refer"].sum())
    figures: dict[str, Interval] = {
        "mean": (rounded(float(probability.mean())), None, None),
        "expected_positives": (rounded(expected), rounded(low), rounded(high)),
        "referred_share": (referred / len(here), *wilson(referred, len(here))),
        "model_version": (float(version), None, None),
    }
    return moved + [
        _row("outputs", PROBABILITY, name, figure, rows=len(here))
        for name, figure in figures.items()
    ]


def _model_of(
    doors: _Doors, tables: _Tables, day: str, section: str, rows: int
) -> tuple[int, _Promise] | Row:
    """Which model a day is compared with and what it promised, or the row that says why none."""

    def none(state: str, sentence: str) -> Row:
        return _row(section, ALL, "rows", (0.0, None, None), state=state, sentence=sentence)

    if not rows:
        what = "application was scored" if section == "outputs" else "application is in features"
        return none("no rows", f"No {what} for {day}.")
    said = tables.said["champion"]
    spoke = said.loc[said["day"] == day, "model_version"]
    if len(spoke):
        counts = spoke.value_counts()
        version = int(max(counts[counts == counts.max()].index))
    else:
        try:
            version = champion(doors.lake, doors.use_case).version
        except NoChampion:
            return none(
                "no model",
                "No model serves yet, so there is nothing to compare with. Run the job "
                f"{doors.use_case.name}_training.",
            )
    promise = _promise(doors, version)
    if isinstance(promise, str):
        return none("unknown", promise)
    return version, promise


def _moved(
    doors: _Doors,
    section: str,
    trained: Mapping[str, Any],
    trained_rows: int,
    version: int,
    past: Mapping[str, pd.DataFrame],
    day: str,
) -> list[Row]:
    """Measures and states of a day's columns, from those of the days before it as well."""
    for one, rows in past.items():
        if (section, version, one) not in doors.measured:
            found = measure(trained, rows, trained_rows=trained_rows)
            doors.measured[section, version, one] = found.assign(day=one)
    measures = pd.concat([doors.measured[section, version, one] for one in past])
    decided = decide(measures, limits(doors.environment), day).set_index("feature")
    found = []
    for one in measures[measures["day"] == day].itertuples():
        verdict = decided.loc[one.feature]
        found.append(
            _row(
                section,
                one.feature,
                "psi",
                (one.psi, None, None),
                rows=one.rows,
                state=verdict["state"],
                since=verdict["since"],
                sentence=verdict["sentence"],
            )
        )
        found += [
            _row(section, one.feature, name, (getattr(one, name), None, None), rows=one.rows)
            for name in _PER_FEATURE
        ]
    return found


def limits(environment: Environment) -> Limits:
    """The environment's limits, as `core.monitoring` takes them."""
    return Limits(**environment.monitoring.limits.model_dump())


def _volume(doors: _Doors, tables: _Tables, day: str, today: str) -> list[Row]:
    def row(figure: Interval, **more: Any) -> list[Row]:
        return [_row("volume", "applications", "rows", figure, **more)]

    if day not in tables.volumes:
        sentence = f"{day} was never read from the source."
        return row(_UNDEFINED, state="unknown", sentence=sentence)
    found = volume(tables.volumes, limits(doors.environment), day)
    figure = (float(found.rows), found.low, found.high)
    if day >= today:
        sentence = f"{found.rows:,} rows so far; the day is not over."
        return row(figure, rows=found.rows, state="not over", sentence=sentence)
    usual = (found.expected, None, None)
    return [
        *row(figure, rows=found.rows, state=found.state, sentence=found.sentence),
        _row("volume", "applications", "rows_usual", usual, rows=found.rows),
    ]


def _outcomes(doors: _Doors, tables: _Tables, day: str) -> list[Row]:
    settings = doors.environment.monitoring.performance
    last = _before(day, doors.use_case.label_maturity_days)
    first = _before(last, settings.days - 1)
    found: list[Row] = []
    for role, version, rows in _by_model(tables.in_time, first, last):
        known = _with_outcomes(doors, tables, rows)
        if len(known):
            promise = _promise_of(doors, role, version)
            found += _realised(doors, tables, f"{role} {version}", promise, known, last)
    if found:
        return found
    return [
        _row(
            "outcomes",
            ALL,
            "rows",
            (0.0, None, None),
            state="not matured",
            sentence=_not_matured(doors, tables, first, last),
        )
    ]


def _not_matured(doors: _Doors, tables: _Tables, first: str, last: str) -> str:
    maturity = doors.use_case.label_maturity_days
    told = f"Outcomes are final {maturity} days after receipt, now up to {last}. "
    said = tables.said["champion"]
    if len(said[said["day"].between(first, last)]):
        return told + "What was said of those days was said too late to count, or has no outcome."
    later = said.loc[said["day"] > last, "day"]
    if later.empty:
        return told + "No application of those days, or of later ones, was scored."
    there = (date.fromisoformat(later.min()) + timedelta(days=maturity)).isoformat()
    return told + f"The first that was scored came on {later.min()}: it is known on {there}."


def _realised(
    doors: _Doors,
    tables: _Tables,
    subject: str,
    promise: _Promise | str | None,
    known: pd.DataFrame,
    last: str,
) -> list[Row]:
    use_case = doors.use_case
    probability = known["probability"].to_numpy(dtype=np.float64)
    outcome = known[use_case.target].to_numpy(dtype=np.int8)
    figures = realised(probability, outcome, **_resampling(doors))
    promised = promise.metrics if isinstance(promise, _Promise) else {}
    estimates = _stored_estimates(tables.earlier.get(last), subject)
    rows = len(known)
    found: list[Row] = []
    for name, figure in figures.items():
        verdict = _verdict(doors, promise, name, figure, rows, "") if promise else {}
        found.append(_row("outcomes", subject, name, figure, rows=rows, **verdict))
        for kind, known_figures in (("promised", promised), ("estimated", estimates)):
            if known_figures.get(name, _UNDEFINED)[0] is not None:
                figure = known_figures[name]
                found.append(_row("outcomes", subject, f"{name}_{kind}", figure, rows=rows))
    expected, low, high = expected_positives(probability)
    actual = float(outcome.sum())
    found.append(
        _row("outcomes", subject, "positives", (actual, rounded(low), rounded(high)), rows=rows)
    )
    figure = (rounded(expected), rounded(low), rounded(high))
    found.append(_row("outcomes", subject, "positives_expected", figure, rows=rows))
    return found


_LABELS = {"roc_auc": "ROC AUC", "log_loss": "log loss"}


def _promise_of(doors: _Doors, role: str, version: int) -> _Promise | str | None:
    """What a champion is held to; nobody acts on a challenger, and there is a new one each day."""
    return _promise(doors, version) if role == "champion" else None


def _verdict(
    doors: _Doors, promise: _Promise | str, name: str, figure: Interval, rows: int, prefix: str
) -> Row:
    """State and sentence of a figure that decides; nothing for the others."""
    settings = doors.environment.monitoring.performance
    if name not in _LABELS:
        return {}
    if isinstance(promise, str):
        return {"state": "unknown", "sentence": promise}
    if rows < settings.min_rows:
        told = f"{rows:,} rows, too few to judge; {settings.min_rows:,} are needed."
        return {"state": "too few rows", "sentence": told}
    judged = beside_promise(
        f"{prefix}{_LABELS[name]}",
        figure,
        promise.metrics.get(name, _UNDEFINED),
        lower_is_better=name == "log_loss",
        margin=getattr(settings, f"{name}_margin"),
    )
    return {
        "state": judged.state,
        "sentence": judged.sentence[0].upper() + judged.sentence[1:],
    }


def _stored_estimates(earlier: pd.DataFrame | None, subject: str) -> dict[str, Interval]:
    """What was estimated of a model on the day whose outcomes are final now."""
    if earlier is None:
        return {}
    # A challenger that was promoted since, or the other way round, is another subject.
    there = earlier[(earlier["section"] == "estimate") & (earlier["subject"] == subject)]
    return {
        one.measure: (one.value, one.low, one.high)
        for one in there.itertuples()
        if not pd.isna(one.value)
    }


def _weeks(doors: _Doors, tables: _Tables, day: str) -> list[Row]:
    last = _before(day, doors.use_case.label_maturity_days)
    known = _with_outcomes(doors, tables, tables.in_time["champion"])
    count = doors.environment.monitoring.performance.weeks
    found = []
    for one in weekly(known, doors.use_case.target, last, count).itertuples():
        is_within = one.low <= one.actual <= one.high
        side = "as expected" if is_within else "more" if one.actual > one.high else "fewer"
        told = f"{one.actual:,} came, {one.expected:,.1f} were expected ({one.low:,.0f} to "
        expected = (one.expected, one.low, one.high)
        found += [
            _row("weeks", one.week, "expected", expected, rows=one.rows),
            _row(
                "weeks",
                one.week,
                "actual",
                (float(one.actual), None, None),
                rows=one.rows,
                state="ok" if is_within else "watch",
                sentence=f"{told}{one.high:,.0f}): "
                + (f"{side}." if is_within else f"{side} than chance explains."),
            ),
        ]
    return found


def _estimate(doors: _Doors, tables: _Tables, day: str) -> list[Row]:
    first = _before(day, doors.environment.monitoring.performance.days - 1)
    found: list[Row] = []
    for role, version, rows in _by_model(tables.said, first, day):
        subject = f"{role} {version}"
        probability = rows["probability"].to_numpy(dtype=np.float64)
        promise = _promise_of(doors, role, version)
        promised = promise.metrics if isinstance(promise, _Promise) else {}
        for name, figure in estimated(probability, **_resampling(doors)).items():
            verdict = (
                _verdict(doors, promise, name, figure, len(rows), "expected ") if promise else {}
            )
            # An estimate is a reason to look closer, not an alarm.
            if verdict.get("state") == "worse":
                verdict["state"] = "watch"
            found.append(_row("estimate", subject, name, figure, rows=len(rows), **verdict))
            if promised.get(name, _UNDEFINED)[0] is not None:
                found.append(
                    _row("estimate", subject, f"{name}_promised", promised[name], rows=len(rows))
                )
    return found or [
        _row(
            "estimate",
            ALL,
            "rows",
            (0.0, None, None),
            state="no rows",
            sentence=f"No application was scored from {first} to {day}.",
        )
    ]


# Helpers


def _by_model(
    said: Mapping[str, pd.DataFrame], first: str, last: str
) -> Iterable[tuple[str, int, pd.DataFrame]]:
    for role, rows in said.items():
        here = rows[rows["day"].between(first, last)]
        for version, own in here.groupby("model_version", sort=True):
            yield role, int(version), own


def _with_outcomes(doors: _Doors, tables: _Tables, said: pd.DataFrame) -> pd.DataFrame:
    return said.merge(tables.outcomes, on=["day", doors.use_case.key])


def _resampling(doors: _Doors) -> dict[str, int]:
    return {
        "resamples": doors.environment.evaluation.resamples,
        "seed": doors.environment.training.seed,
    }


def _before(day: str, days: int) -> str:
    return (date.fromisoformat(day) - timedelta(days=days)).isoformat()


def _row(
    section: str,
    subject: str,
    name: str,
    figure: Interval = _UNDEFINED,
    *,
    rows: int = 0,
    state: str | None = None,
    since: str | None = None,
    sentence: str | None = None,
) -> Row:
    value, low, high = figure
    return {
        "section": section,
        "subject": subject,
        "measure": name,
        "value": value,
        "low": low,
        "high": high,
        "rows": rows,
        "state": state,
        "since": since,
        "sentence": sentence,
    }


def _since(rows: list[Row], yesterday: pd.DataFrame | None, day: str) -> list[Row]:
    """The rows with the first day of each run of trouble, which yesterday's rows may know."""
    known: dict[tuple[str, str, str], str] = {}
    if yesterday is not None:
        there = yesterday[yesterday["since"].notna()]
        known = {(one.section, one.subject, one.measure): one.since for one in there.itertuples()}
    for row in rows:
        if row["state"] not in (*TROUBLE, "watch"):
            continue
        before = known.get((row["section"], row["subject"], row["measure"]))
        if row["since"] is None:
            row["since"] = before or day
        elif before and row["since"] <= _before(day, _HISTORY):
            # It began before all that was looked at: yesterday's row knows when.
            row["since"] = before
    return rows


def _as_table(rows: list[Row], day: str) -> pd.DataFrame:
    frame = pd.DataFrame(rows).assign(day=day)[list(Monitoring.to_schema().columns)]
    numbers, texts = ["value", "low", "high"], ["state", "since", "sentence"]
    frame[numbers] = frame[numbers].astype("float64")
    frame["rows"] = frame["rows"].astype("int64")
    frame[texts] = frame[texts].astype(object).where(frame[texts].notna(), None)
    return frame
