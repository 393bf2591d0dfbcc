"""How the processes of the code location log: one handler, one format, nothing secret.

`configure` is called where the code location is loaded, so in the code server and in every run;
commands keep their own output. The daemon and the webserver load nothing of ours: their
`--log-format json` has the same fields (`timestamp`, `level`, `logger`, `event`).
"""

import logging
import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from ml_assets.environment import LogSettings
from ml_assets.masking import fit, fit_error

# Set by Dagster on what is logged within a run: its context, and its own event.
_META, _EVENT, _BATCH = "dagster_meta", "dagster_event", "dagster_event_batch_metadata"

# Dagster logs its own events as debug; these are what a reader follows a run by.
_MILESTONES = frozenset(
    {
        "PIPELINE_START",
        "PIPELINE_SUCCESS",
        "ASSET_MATERIALIZATION",
        "ASSET_CHECK_EVALUATION",
        "STEP_UP_FOR_RETRY",
    }
)
_ENDS = frozenset({"PIPELINE_SUCCESS", "PIPELINE_FAILURE", "PIPELINE_CANCELED"})

# Names of fields whose values are blotted out whole.
_SECRET = re.compile(
    "passw(or)?d|pwd|secret|token|credential|authorization|(api|access|private)_?key", re.I
)

# Fields that hold an error as it is printed.
_ERRORS = ("exception", "stack_info")

# Loggers whose messages are the platform's own words, or Dagster's.
_OURS = frozenset({"ml_assets", "dagster"})

# Where Dagster, and libraries that bring handlers of their own, would write beside us.
_WITH_HANDLERS = ("dagster", "dagster-webserver", "dagit", "mlflow", "alembic")

# What a run's own console said last: libraries log beside it, and know nothing of runs.
_current: dict[str, str] = {}
_assets: set[str] = set()  # by which the asset of a step is known


def configure(settings: LogSettings, assets: Iterable[str] = ()) -> None:
    """Let everything in this process log through one handler; calling it again changes nothing.

    Args:
        settings: The format, and the least level.
        assets: The assets of the code location, such as `claims/raw`.
    """
    _assets.update(assets)
    # MLflow would give its loggers a handler when it is imported, later than this.
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    level = logging.getLevelName(settings.level.upper())
    root = logging.getLogger()
    for logger in (root, *map(logging.getLogger, _WITH_HANDLERS)):
        for handler in [each for each in logger.handlers if _writes_to_the_console(each)]:
            logger.removeHandler(handler)
        logger.propagate = True
    handler = _handler(settings.format, level)
    handler.addFilter(_is_not_of_a_run)
    root.addHandler(handler)
    root.setLevel(level)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # tells each look at a schema
    logging.captureWarnings(True)
    logging.setLoggerClass(_run_logger(settings.format, level))


def fields(record: logging.LogRecord) -> dict[str, str]:
    """The run, job, partition, step and asset that a line is about, as far as they are known."""
    meta: Mapping[str, Any] | None = getattr(record, _META, None)
    if meta is None:
        return dict(_current)
    event = meta.get(_EVENT)  # what a sensor or schedule says has none, nor a run
    step = meta.get("step_key") or ""
    asset = getattr(event, "asset_key", None)
    found = {
        "run_id": meta.get("run_id") or "",
        "job": meta.get("job_name") or "",
        "partition": _partition(meta.get("job_tags") or {}),
        "step": step,
        "asset": asset.to_user_string() if asset else _asset_of(step),
        "dagster_event": event.event_type.value if event else "",
    }
    return {name: value for name, value in found.items() if value}


def clean(value: Any, name: str = "") -> Any:
    """What a line carries, fit for the log: without secrets, and without values of rows.

    Args:
        value: A text of anybody's, or what a line was given besides, of any type.
        name: The field that it is the value of.
    """
    if value is None or isinstance(value, bool):
        return value
    if _SECRET.search(name):
        return "***"
    if isinstance(value, int | float | date | time):
        return value
    if isinstance(value, Mapping):
        return {clean(str(key)): clean(each, str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(each) for each in value]
    if isinstance(value, BaseException):
        kind = type(value)
        return fit_error(f"{kind.__module__}.{kind.__qualname__}: {value}")
    return fit(str(value), ours=False)


class _Json(JsonFormatter):
    """A line is a JSON object."""

    def __init__(self) -> None:
        super().__init__(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={
                "levelname": "level",
                "name": "logger",
                "message": "event",
                "exc_info": "exception",
            },
            reserved_attrs=[*logging.makeLogRecord({}).__dict__, _META, _EVENT, _BATCH, "message"],
            json_ensure_ascii=False,
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        ours = _is_ours(str(log_data["logger"]))
        return {
            **{name: clean(value, name) for name, value in log_data.items()},
            "event": fit(log_data["event"], ours=ours),
            **{name: fit_error(log_data[name]) for name in _ERRORS if log_data.get(name)},
        }

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        message, error = _said(record)
        log_data.update(
            {
                "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
                "level": record.levelname.lower(),
                "event": message,
                **fields(record),
                **({"exception": error} if error else {}),
            }
        )


class _Text(logging.Formatter):
    """A line for people, ending in what it is about."""

    def format(self, record: logging.LogRecord) -> str:
        message, error = _said(record)
        about = fields(record)
        context = " ".join(
            about[name][:8] if name == "run_id" else about[name]
            for name in ("job", "partition", "step", "run_id")
            if name in about
        )
        raised = self.formatException(record.exc_info) if record.exc_info else ""
        time = datetime.fromtimestamp(record.created).astimezone()
        line = f"{time:%Y-%m-%d %H:%M:%S %z} {record.levelname:<7} {record.name} {message}"
        line = fit(line + f" [{context}]" * bool(context), ours=_is_ours(record.name))
        return "\n".join(filter(None, [line, *map(fit_error, filter(None, (error, raised)))]))


def _said(record: logging.LogRecord) -> tuple[str, str]:
    """A line's own words, and the error that Dagster's event carries."""
    meta = getattr(record, _META, None)
    if meta is None:
        return record.getMessage(), ""
    event = meta.get(_EVENT)  # a sensor's own words have none
    error = getattr(getattr(event, "event_specific_data", None), "error", None)
    return str(meta["orig_message"]), error.to_string() if error else ""


def _is_ours(logger: str) -> bool:
    return logger.partition(".")[0] in _OURS


def _partition(tags: Mapping[str, str]) -> str:
    first = tags.get("dagster/asset_partition_range_start", "")
    last = tags.get("dagster/asset_partition_range_end", "")
    return tags.get("dagster/partition") or (f"{first}...{last}" if first else "")


def _asset_of(step: str) -> str:
    """The asset that Dagster named a step after; of a check's step, the asset that it checks."""
    name = step.replace("__", "/")
    found = [each for each in _assets if name == each or name.startswith(f"{each}_")]
    return max(found, key=len, default="")


def _handler(form: str, level: int) -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setLevel(level)
    handler.setFormatter(_Json() if form == "json" else _Text())
    return handler


def _writes_to_the_console(handler: logging.Handler) -> bool:
    return type(handler) is logging.StreamHandler or isinstance(handler.formatter, _Json | _Text)


def _is_not_of_a_run(record: logging.LogRecord) -> bool:
    """Whether a line has not been put out by its run's console already."""
    return not hasattr(record, _META)


def _run_logger(form: str, level: int) -> type[logging.Logger]:
    """The class of the logger that is a run's console.

    Dagster makes one for each run, colours it, and lets it be replaced only by the configuration of
    each single run. But it makes it of the class that `logging` is told to use.
    """

    class RunLogger(logging.Logger):
        def addHandler(self, hdlr: logging.Handler) -> None:
            # Those that `getLogger` makes have a parent; Dagster's console has none.
            ours = self.name == "dagster" and self.parent is None
            super().addHandler(_handler(form, level) if ours else hdlr)

        def handle(self, record: logging.LogRecord) -> None:
            if hasattr(record, _META):
                _remember(record)
                record.levelno = max(record.levelno, _importance(record))
                record.levelname = logging.getLevelName(record.levelno)
            super().handle(record)

    return RunLogger


def _importance(record: logging.LogRecord) -> int:
    """The least level at which an event of Dagster's own is logged."""
    event = getattr(record, _META).get(_EVENT)
    kind = event.event_type.value if event else ""
    if kind == "ASSET_CHECK_EVALUATION" and not event.asset_check_evaluation_data.passed:
        return logging.WARNING
    return logging.INFO if kind in _MILESTONES else logging.NOTSET


def _remember(record: logging.LogRecord) -> None:
    about = fields(record)
    _current.clear()
    if about.get("dagster_event") not in _ENDS:
        _current.update({name: about[name] for name in about if name != "dagster_event"})
