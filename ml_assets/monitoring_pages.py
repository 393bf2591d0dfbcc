"""Gathers the days that a monitoring page shows, and keeps the page in the project's folder.

How the page looks is in `ml_assets.report.monitoring`.
"""

from datetime import date, timedelta
from pathlib import Path

import pandas as pd

from ml_assets.environment import Environment
from ml_assets.monitoring import remedies
from ml_assets.pages import replace_page
from ml_assets.report.monitoring import SHOWN_DAYS, Page, monitoring_page
from ml_assets.resources.lake import Lake
from ml_assets.use_case import UseCase


def write_page(
    environment: Environment, use_case: UseCase, lake: Lake, found: pd.DataFrame, day: str
) -> Path:
    """Write the page of a day into the project's folder, or write it anew.

    The newest day's page is also kept as `monitoring_latest.html`.

    Args:
        environment: Where the folder is.
        use_case: Whose page.
        lake: Its tables: earlier days are read from there.
        found: Rows of `core.tables.Monitoring` of the day, and of others that are not in the table
            yet.
        day: YYYY-MM-DD.

    Returns:
        The day's file.

    Raises:
        OSError: The folder takes no file; an older page stays as it was.
    """
    table = f"{use_case.name}/monitoring"
    first = (date.fromisoformat(day) - timedelta(days=SHOWN_DAYS - 1)).isoformat()
    rows = found[found["day"].between(first, day)]
    if lake.version(table) is not None:
        stored = lake.read(table, first, day)
        rows = pd.concat([stored[~stored["day"].isin(set(found["day"]))], rows])
    page = monitoring_page(
        Page(
            use_case=use_case.name,
            description=use_case.description,
            owners=use_case.owners,
            day=day,
            maturity_days=use_case.label_maturity_days,
            remedies=remedies(use_case),
            rows=rows,
        )
    ).encode()
    file = page_file(environment, use_case, day)
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_page(file, page)
    latest = page_file(environment, use_case, "latest")
    newest = max((each.stem for each in file.parent.glob("monitoring_2*.html")), default="")
    if newest <= file.stem:
        replace_page(latest, page)
    return file


def page_file(environment: Environment, use_case: UseCase, day: str) -> Path:
    """Where the page of a day lies; `latest` for that of the newest day."""
    return environment.reports_folder / use_case.name / f"monitoring_{day}.html"
