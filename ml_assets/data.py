"""Tables for people: a frame of days, as they are now or as they stood at a version or an instant.

Reading for the platform's own assets belongs in `ml_assets.io_managers`.
"""

import os
from datetime import date, datetime, time
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from ml_assets.environment import Environment, load_environment
from ml_assets.resources.lake import Lake

Day: TypeAlias = date | str

_FIRST, _LAST = "0001-01-01", "9999-12-31"


def load(
    table: str,
    start: Day | None = None,
    end: Day | None = None,
    *,
    version: int | None = None,
    as_of: datetime | Day | None = None,
    columns: list[str] | None = None,
    env: str | None = None,
    home: str | Path | None = None,
) -> pd.DataFrame:
    """Read a table, as it is now or as it was.

        features = ml_assets.load("claims/features", start="2026-01-01", end="2026-01-31")

    Args:
        table: Its name, such as `claims/features`; `ml-assets data list` lists them.
        start: First day, a date or YYYY-MM-DD; by default the table's first.
        end: Last day, included; by default the table's last.
        version: The number of an earlier version; `ml-assets data log TABLE` lists them.
        as_of: An instant; the version that stood then is read. A datetime with a time zone, or the
            same as ISO text. Without a zone it is in the environment's time zone, and a day alone
            is its beginning, midnight.
        columns: The columns to read; by default all.
        env: The environment; by default `ML_ASSETS_ENV`, or else `dev`.
        home: The project's folder; by default `ML_ASSETS_HOME`, or else `.ml_assets` in the
            current folder.

    Returns:
        Rows ordered by day and key. `attrs["table"]` and `attrs["table_version"]` tell what was
        read, so that the same rows can be read again.

    Raises:
        ValueError: A day or instant that is none, `version` together with `as_of`, or a folder in
            which nothing has run yet.
        LakeError: There is no such table, version or column, or maintenance has removed it.
    """
    if version is not None and as_of is not None:
        raise ValueError("version and as_of both choose a version: give one of them")
    environment = _environment(env, home)
    lake = Lake(**environment.lake.model_dump())
    first = _FIRST if start is None else _day(start, "start")
    last = _LAST if end is None else _day(end, "end")
    if first > last:
        raise ValueError(f"start {first} is after end {last}: swap them")
    chosen = version if as_of is None else _instant(as_of, environment)
    frame = lake.read(table, first, last, columns=columns, version=chosen)
    frame.attrs["table"] = table
    return frame


def _environment(name: str | None, home: str | Path | None) -> Environment:
    environ: dict[str, str] = dict(os.environ)
    if home is not None:
        environ["ML_ASSETS_HOME"] = str(home)
    environment = load_environment(name, environ=environ)
    tables_are_in_home = Path(environment.lake.url).is_relative_to(environment.home)
    if tables_are_in_home and not environment.home.is_dir():
        raise ValueError(
            f"there is nothing in {environment.home}. Name the project's folder by home=… or "
            "ML_ASSETS_HOME, or work in the folder that holds .ml_assets; for a first look run "
            "`ml-assets demo`."
        )
    return environment


def _day(value: Day, name: str) -> str:
    if isinstance(value, datetime):
        raise ValueError(f"{name} is the instant {value}: expected a day, a date or YYYY-MM-DD")
    if isinstance(value, date):
        return value.isoformat()
    try:
        if len(value) == 10:
            return date.fromisoformat(value).isoformat()
    except ValueError:
        pass
    raise ValueError(f"{name} {value!r} is not a day: expected a date or YYYY-MM-DD")


def _instant(value: datetime | Day, environment: Environment) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(
                f"as_of {value!r} is not an instant: expected ISO text such as "
                "2026-01-31T18:00:00+00:00"
            ) from None
    elif not isinstance(value, datetime):
        value = datetime.combine(value, time.min)
    return value if value.tzinfo else value.replace(tzinfo=environment.zone)
