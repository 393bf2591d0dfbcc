"""One validated environment: base.yaml, then <environment>.yaml, then environment variables.

Every place, switch and knob of the platform is a field here, and is read nowhere else. What a use
case is (its contract, its query, its policies) belongs in `ml_assets.use_case`, not here.
"""

import os
import re
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ml_assets.masking import mask_url as mask_url
from ml_assets.separation import PLACES, clashes

ENVIRONMENTS = ("dev", "preprod", "prod")
CONFIG_DIR = Path(str(resources.files("ml_assets") / "config"))

# Secrets and places: the environment variable and the field that it sets.
VARIABLES = {
    "ML_ASSETS_HOME": ("home",),
    "ML_ASSETS_SOURCE": ("source",),
    "ML_ASSETS_WAREHOUSE_URL": ("warehouse", "url"),
    "ML_ASSETS_LANDING_URL": ("landing", "url"),
    "ML_ASSETS_LAKE_URL": ("lake", "url"),
    "ML_ASSETS_REGISTRY_URL": ("registry", "url"),
    "ML_ASSETS_STORAGE_URL": ("storage", "url"),
    "ML_ASSETS_REPORTS_URL": ("reports", "url"),
    "ML_ASSETS_ALERT_URLS": ("alerts", "urls"),
    "ML_ASSETS_HEARTBEAT_URL": ("alerts", "heartbeat_url"),
    "ML_ASSETS_UI_URL": ("alerts", "ui_url"),
}

# Files lie in a repository that many read.
_ONLY_BY_VARIABLE = ("ML_ASSETS_ALERT_URLS", "ML_ASSETS_HEARTBEAT_URL")
# Of the options of an object store. A key's id may be one of encryption, which is no secret.
_CREDENTIAL = re.compile(
    "passw(or)?d|secret|token|credential|signature|access_?key|key$|connection_?string",
    re.IGNORECASE,
)

_SECRET_KEY = re.compile(rf"{_CREDENTIAL.pattern}|(^|_)key|^(urls|heartbeat_url)$", re.IGNORECASE)


class InvalidEnvironment(ValueError):
    """A configuration file or variable is wrong; the message names it and what was expected."""


def _known_time_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("expected an IANA time zone such as Europe/London")
    return name


def _time_of_day(text: str) -> str:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
        raise ValueError('expected a time of day such as "06:15"')
    return text


def _begins_with(*starts: str) -> Callable[[str], str]:
    def check(url: str) -> str:
        if not url.startswith(starts):
            raise ValueError(f"expected a URL that begins with {' or '.join(starts)}")
        return url

    return check


def _shared_place(text: str) -> str:
    name, _, place = text.partition(".")
    if name not in ENVIRONMENTS or place not in PLACES:
        raise ValueError(
            "expected an environment and one of its places, such as prod.warehouse; the places "
            f"are {', '.join(PLACES)}"
        )
    return text


def _variable_name(text: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", text):
        raise ValueError("expected the name of an environment variable, such as PGPASSWORD")
    return text


def _without_driver(url: Any) -> Any:
    """What a process of Dagster's is given names its driver: `with_driver`, in `ml_assets.home`."""
    return (
        url.replace("postgresql+psycopg2://", "postgresql://", 1) if isinstance(url, str) else url
    )


TimeOfDay = Annotated[str, AfterValidator(_time_of_day)]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class WarehouseSettings(_Section):
    """Where applications arrive."""

    url: Annotated[str, AfterValidator(_begins_with("duckdb:///", "postgresql://"))]
    attempts: int = Field(ge=1, le=20)
    backoff_seconds: float = Field(ge=0, le=60)
    statement_timeout_seconds: int = Field(ge=1, le=86_400)


class LandingSettings(_Section):
    """Where other systems drop files, and how a complete file is told from one under way."""

    url: str = Field(min_length=1)
    storage_options: dict[str, str]
    complete: Literal["settled", "marker", "renamed"]
    settle_seconds: int = Field(ge=0, le=86_400)
    max_file_bytes: int = Field(ge=1)


class LakeSettings(_Section):
    """Where the platform's own tables lie."""

    url: str = Field(min_length=1)
    storage_options: dict[str, str]
    attempts: int = Field(ge=1, le=50)


class RegistrySettings(_Section):
    """Where models are registered."""

    url: Annotated[
        str, AfterValidator(_begins_with("sqlite:///", "postgresql://", "http://", "https://"))
    ]
    artifacts: str
    cache: str


class ReportsSettings(_Section):
    """Where people open the pages that are written into `reports/` of the home."""

    url: Annotated[str, AfterValidator(_begins_with("http://", "https://"))] | Literal[""]


class StorageSettings(_Section):
    """Where Dagster keeps runs, events and schedules; empty for SQLite in the home."""

    url: (
        Annotated[
            str,
            BeforeValidator(_without_driver),
            AfterValidator(_begins_with("postgresql://")),
        ]
        | Literal[""]
    )


class ContractSettings(_Section):
    """How much bad data a day may hold."""

    max_bad_share: float = Field(ge=0, le=1)


class ScheduleSettings(_Section):
    """When the daily and weekly jobs start, in the environment's time zone."""

    enabled: bool
    scoring_at: TimeOfDay
    monitoring_at: TimeOfDay
    training_at: TimeOfDay
    tuning_at: TimeOfDay
    tuning_on: Weekday
    maintenance_at: TimeOfDay
    maintenance_on: Weekday


class DriftSettings(_Section):
    """What raises an alarm: see `ml_assets.core.monitoring.Limits`."""

    min_rows: int = Field(ge=1)
    psi: float = Field(ge=0)
    missing_increase: float = Field(ge=0, le=1)
    unseen_share: float = Field(ge=0, le=1)
    psi_at_once: float = Field(ge=0)
    false_discovery_rate: float = Field(gt=0, lt=1)
    days_over: int = Field(ge=1)
    days: int = Field(ge=1)
    volume_change: float = Field(ge=0)
    volume_confidence: float = Field(gt=0, lt=1)
    volume_weeks: int = Field(ge=1)
    volume_min_weeks: int = Field(ge=1)


class PerformanceSettings(_Section):
    """Over which days performance is looked at, and when it is worse than promised."""

    days: int = Field(ge=1, le=366)
    weeks: int = Field(ge=1, le=53)
    min_rows: int = Field(ge=1)
    roc_auc_margin: float = Field(ge=0, le=1)
    log_loss_margin: float = Field(ge=0)


class MonitoringSettings(_Section):
    """What is watched from day to day."""

    predictions_by: TimeOfDay
    performance: PerformanceSettings
    limits: DriftSettings


class MaintenanceSettings(_Section):
    """What the clean-up of tables leaves alone, beside all that a registered model needs."""

    keep_days: int = Field(ge=0, le=3_650)


class SensorSettings(_Section):
    """How the new-data sensor looks for changed days."""

    enabled: bool
    interval_seconds: int = Field(ge=5)
    max_days_per_tick: int = Field(ge=1)
    scoring_days: int = Field(ge=1)


class TrainingSettings(_Section):
    """How models are trained; `parameters` are XGBoost's own."""

    seed: int = Field(ge=0)
    threads: int = Field(ge=1)
    validation_days: int = Field(ge=1)
    calibration_days: int = Field(ge=1)
    calibration_folds: int = Field(ge=2)
    holdout_days: int = Field(ge=1)
    max_rounds: int = Field(ge=1)
    early_stopping_rounds: int = Field(ge=1)
    parameters: dict[str, int | float | str]


class EvaluationSettings(_Section):
    """How a model is judged."""

    resamples: int = Field(ge=100)
    plots: bool


class GuardrailSettings(_Section):
    """What no promotion may break; see `ml_assets.core.gate.Limits`."""

    min_holdout_rows: int = Field(ge=1)
    calibration_slope_low: float = Field(ge=0)
    calibration_slope_high: float = Field(ge=0)
    slice_margin: float = Field(ge=0)
    min_slice_rows: int = Field(ge=1)
    max_missing_increase: float = Field(ge=0, le=1)


class TuningSettings(_Section):
    """How hyperparameters are searched, and on how many days the outcome is judged."""

    trials: int = Field(ge=1, le=1_000)
    time_budget_seconds: int = Field(ge=1, le=86_400)
    metric: Literal["log_loss", "roc_auc"]
    folds: int = Field(ge=2, le=20)
    fold_days: int = Field(ge=1)
    judge_days: int = Field(ge=1)


class GateSettings(_Section):
    """When a challenger takes the champion's place."""

    confidence: float = Field(ge=0.5, lt=1)
    resamples: int = Field(ge=100)
    margin: float = Field(ge=0)
    refresh_after_days: int = Field(ge=1)
    hold_after_rollback_days: int = Field(ge=0)
    guardrails: GuardrailSettings


def _alert_targets(text: str) -> str:
    # The first part of each, up to a comma or a space: what follows may be secret.
    for number, part in enumerate(re.split(r"[,\s]+(?=[a-zA-Z0-9]+:)", text.strip()), 1):
        if text.strip() and not re.match(r"[a-zA-Z0-9]{2,}://[^\s/]", part):
            raise ValueError(
                f"target {number} is no URL of Apprise such as mailto://… or slack://… "
                "(docs/alerts.md)"
            )
    return text


class AlertSettings(_Section):
    """Who is told of trouble, and how often at most."""

    enabled: bool
    urls: Annotated[str, AfterValidator(_alert_targets)]
    heartbeat_url: Annotated[str, AfterValidator(_begins_with("http://", "https://"))] | Literal[""]
    ui_url: Annotated[str, AfterValidator(_begins_with("http://", "https://"))] | Literal[""]
    least_level: Literal["info", "warning", "error"]
    repeat_after_hours: int = Field(ge=1, le=8_760)
    max_per_hour: int = Field(ge=2, le=1_000)
    give_up_after_hours: int = Field(ge=1, le=8_760)


class LogSettings(_Section):
    """How the processes of the code location log."""

    format: Literal["text", "json"]
    level: Literal["debug", "info", "warning", "error"]


class ScoringSettings(_Section):
    """What is said about each application."""

    reasons: int = Field(ge=0, le=20)


class Environment(_Section):
    """Everything that may differ between a laptop and production."""

    name: Literal["dev", "preprod", "prod"]
    home: Path
    time_zone: Annotated[str, AfterValidator(_known_time_zone)]
    requires: list[Annotated[str, AfterValidator(_variable_name)]]
    shares: list[Annotated[str, AfterValidator(_shared_place)]]
    source: Literal["warehouse", "landing"]
    warehouse: WarehouseSettings
    landing: LandingSettings
    lake: LakeSettings
    registry: RegistrySettings
    reports: ReportsSettings
    storage: StorageSettings
    contract: ContractSettings
    schedules: ScheduleSettings
    sensor: SensorSettings
    maintenance: MaintenanceSettings
    training: TrainingSettings
    tuning: TuningSettings
    evaluation: EvaluationSettings
    gate: GateSettings
    scoring: ScoringSettings
    alerts: AlertSettings
    logs: LogSettings
    monitoring: MonitoringSettings

    @property
    def zone(self) -> ZoneInfo:
        """The time zone that turns an instant into a day."""
        return ZoneInfo(self.time_zone)

    @property
    def reports_folder(self) -> Path:
        """The folder of the pages for people: model cards, monitoring."""
        return self.home / "reports"

    @property
    def dagster_home(self) -> Path:
        """The folder of Dagster's own instance: runs, events, schedules."""
        return self.home / "dagster"

    def owners(self, place: str) -> tuple[str, ...]:
        """Whose stamp a place may carry: this environment, and those that it shares it with."""
        shared = (each.split(".") for each in self.shares)
        others = (name for name, shares in shared if shares == place)
        return tuple(dict.fromkeys((self.name, *others)))


def load_environment(
    name: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config_dir: Path = CONFIG_DIR,
) -> Environment:
    """Read and validate one environment.

    Args:
        name: `dev`, `preprod` or `prod`; by default `ML_ASSETS_ENV`, or else `dev`.
        environ: The environment variables to lay over the files; by default the process's own.
        config_dir: The folder with `base.yaml` and a file per environment.

    Raises:
        InvalidEnvironment: An unknown environment, unreadable YAML, an unknown key or a wrong
            value; the message names file and key, and says what was expected. Or a place is that
            of another environment, and `shares` does not name it.
    """
    environ = os.environ if environ is None else environ
    name = name or environ.get("ML_ASSETS_ENV") or "dev"
    if name not in ENVIRONMENTS:
        raise InvalidEnvironment(
            f"unknown environment {name!r}: expected one of {', '.join(ENVIRONMENTS)} "
            "(set by --env or ML_ASSETS_ENV)"
        )
    files = ("base.yaml", f"{name}.yaml")
    layers = [(file, _read_yaml(config_dir / file)) for file in files]
    _require_no_secret(layers)
    layers.append(("environment variables", _from_variables(environ)))
    merged: dict[str, Any] = {}
    for _, layer in layers:
        merged = _merge(merged, layer)
    try:
        home = Path(merged["home"]).expanduser().resolve()
        merged = _merge(_fill_home(merged, str(home)), {"home": home, "name": name})
        environment = Environment.model_validate(merged)
    except (KeyError, TypeError):
        raise InvalidEnvironment(
            f"{_origin(layers, ('home',))}: home: expected the path of a folder"
        ) from None
    except ValidationError as error:
        raise InvalidEnvironment(_explain(error, layers)) from None
    others = {each: _by_files(each, config_dir) for each in ENVIRONMENTS if each != name}
    if found := clashes(_mask(merged), others):
        raise InvalidEnvironment(
            "\n".join(f"{_origin(layers, keys)}: {'.'.join(keys)}: {told}" for keys, told in found)
        )
    return environment


def missing_variables(
    environment: Environment, environ: Mapping[str, str] | None = None
) -> list[str]:
    """Those of `requires` that are not set.

    PGPASSWORD is not missed where PGPASSFILE is set, or where each URL has a password of its own.
    """
    environ = os.environ if environ is None else environ
    urls = [environment.storage.url, environment.registry.url]
    urls += [environment.warehouse.url] if environment.source == "warehouse" else []
    needs_password = any(
        url.startswith("postgresql://") and "***" not in mask_url(url) for url in urls
    )
    can_log_in = bool(environ.get("PGPASSFILE")) or not needs_password
    return [
        variable
        for variable in environment.requires
        if not environ.get(variable) and not (variable == "PGPASSWORD" and can_log_in)
    ]


def require_variables(environment: Environment, environ: Mapping[str, str] | None = None) -> None:
    """Refuse to start without the variables that the environment requires.

    Raises:
        InvalidEnvironment: Naming those that are missing.
    """
    if missing := missing_variables(environment, environ):
        raise InvalidEnvironment(missing_in_words(environment, missing))


def missing_in_words(environment: Environment, missing: list[str]) -> str:
    """What is missing, and what to do about it."""
    names = ", ".join(missing)
    kind = "variable" if len(missing) == 1 else "variables"
    login = (
        " PGPASSWORD is the password of every postgresql:// URL that has none of its own; "
        "PGPASSFILE may name a file of passwords instead."
        if "PGPASSWORD" in missing
        else ""
    )
    return (
        f"environment {kind} {names}: not set, and {environment.name} does not start without "
        f"({environment.name}.yaml: requires). Set {'it' if len(missing) == 1 else 'them'} where "
        f"the process is started.{login}"
    )


def masked(environment: Environment) -> dict[str, Any]:
    """The effective values as plain data, with every secret replaced by `***`."""
    return _mask(environment.model_dump(mode="json"))


def with_driver(url: str) -> str:
    """A database's URL with the driver that deployments have.

    SQLAlchemy 2.1 would take psycopg 3 for PostgreSQL.
    """
    return url.replace("postgresql://", "postgresql+psycopg2://", 1)


def _by_files(name: str, config_dir: Path) -> dict[str, Any]:
    """What another environment's files say, masked; nothing if they cannot be read."""
    try:
        base, own = (_read_yaml(config_dir / f"{each}.yaml") for each in ("base", name))
        merged = _merge(base, own)
        home = Path(merged["home"]).expanduser().resolve()
    except (InvalidEnvironment, KeyError, TypeError):
        return {}
    found: dict[str, Any] = _mask({**_fill_home(merged, str(home)), "home": str(home)})
    return found


def _require_no_secret(layers: list[tuple[str, dict[str, Any]]]) -> None:
    """Refuse what only a variable may set."""
    for file, layer in layers:
        for variable in _ONLY_BY_VARIABLE:
            section, key = VARIABLES[variable]
            if _of(layer, section).get(key):
                raise InvalidEnvironment(
                    f"{file}: {section}.{key}: it carries secrets; set {variable} instead"
                )
        for section in ("landing", "lake"):
            for key, value in _of(_of(layer, section), "storage_options").items():
                if value and _CREDENTIAL.search(str(key)):
                    raise InvalidEnvironment(
                        f"{file}: {section}.storage_options.{key}: credentials have no place in a "
                        "file; give them by the variables of the object store, such as "
                        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                    )


def _of(layer: dict[str, Any], key: str) -> dict[str, Any]:
    """A nested mapping; empty if it is something else, which the validation tells."""
    found = layer.get(key)
    return found if isinstance(found, dict) else {}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidEnvironment(f"{path}: the file is missing") from None
    except OSError as error:
        raise InvalidEnvironment(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "expected YAML"
        raise InvalidEnvironment(f"{path}{line}: not valid YAML: {problem}") from None
    except ValueError as error:  # not UTF-8, or a date that no calendar has
        raise InvalidEnvironment(f"{path}: not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InvalidEnvironment(
            f"{path}: expected keys and values, found {type(content).__name__}"
        )
    return content


def _from_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    for variable in environ:
        if variable.startswith("ML_ASSETS_") and variable not in {*VARIABLES, "ML_ASSETS_ENV"}:
            raise InvalidEnvironment(
                f"environment variables: {variable}: unknown; expected one of ML_ASSETS_ENV, "
                f"{', '.join(VARIABLES)}"
            )
    layer: dict[str, Any] = {}
    for variable, keys in VARIABLES.items():
        if place := environ.get(variable):
            value: Any = place
            for key in reversed(keys):
                value = {key: value}
            layer = _merge(layer, value)
    return layer


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another; nested mappings merge, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


def _fill_home(value: Any, home: str) -> Any:
    if isinstance(value, dict):
        return {key: _fill_home(item, home) for key, item in value.items()}
    return value.replace("{home}", home) if isinstance(value, str) else value


def _mask(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "***" if _SECRET_KEY.search(key) and isinstance(item, str) else _mask(item)
            for key, item in value.items()
        }
    return mask_url(value) if isinstance(value, str) else value


def _explain(error: ValidationError, layers: list[tuple[str, dict[str, Any]]]) -> str:
    lines = []
    for problem in error.errors():
        keys = tuple(str(key) for key in problem["loc"])
        key = ".".join(keys)
        if problem["type"] == "extra_forbidden":
            known = ", ".join(_known_keys(keys[:-1]))
            expected = f"unknown key; expected one of {known}"
        elif problem["type"] == "missing":
            expected = "missing"
        else:
            keys = _longest_set(layers, keys)  # pydantic appends the type that it tried
            key = ".".join(keys)
            found = problem["input"]
            if isinstance(found, list | dict):
                found = type(found).__name__
            found = "***" if _SECRET_KEY.search(keys[-1]) else mask_url(str(found))
            expected = f"{problem['msg'].removeprefix('Value error, ')}; found {found!r}"
        lines.append(f"{_origin(layers, keys)}: {key}: {expected}")
    return "\n".join(lines)


def _known_keys(keys: tuple[str, ...]) -> list[str]:
    model: Any = Environment
    for key in keys:
        model = model.model_fields[key].annotation
    return [key for key in model.model_fields if key != "name"]


def _origin(layers: list[tuple[str, dict[str, Any]]], keys: tuple[str, ...]) -> str:
    """The last layer that sets this key: the place to mend it."""
    for name, layer in reversed(layers):
        if _sets(layer, keys):
            return name
    return layers[0][0]


def _longest_set(
    layers: list[tuple[str, dict[str, Any]]], keys: tuple[str, ...]
) -> tuple[str, ...]:
    while len(keys) > 1 and not any(_sets(layer, keys) for _, layer in layers):
        keys = keys[:-1]
    return keys


def _sets(layer: Any, keys: tuple[str, ...]) -> bool:
    for key in keys:
        if not isinstance(layer, dict) or key not in layer:
            return False
        layer = layer[key]
    return True
