"""What people ask of models: which there are, who served when, why an application got its score.

Changing who serves is in `ml_assets.champions`, training a version again in
`ml_assets.reproduction`.
"""

from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from ml_assets.champions import Reign, barred, history, in_words
from ml_assets.core.bundle import Bundle
from ml_assets.core.explanations import Reason, read_reasons, strongest_reasons
from ml_assets.core.features import row_hashes
from ml_assets.resources.lake import Lake, LakeError
from ml_assets.resources.registry import Registry, Version
from ml_assets.use_case import UseCase

_REASONS = 6


class UnknownApplication(ValueError):
    """Nothing was ever said about this application."""


@dataclass(frozen=True)
class Listed:
    """A registered version.

    Attributes:
        registered: What the registry knows of it.
        serving_since: Since when it serves, if it does.
        served: From when to when it served before, oldest first.
        barred: Whether it was rolled back, so that only a person brings it back.
    """

    registered: Version
    serving_since: datetime | None
    served: tuple[tuple[datetime, datetime], ...]
    barred: bool


@dataclass(frozen=True)
class Explanation:
    """What was said about an application, with what, and why.

    Attributes:
        key: The application.
        day: Its day.
        probability: What was said.
        threshold: The model's, from which an application is referred.
        refer: The decision.
        scored_at: When it was said.
        model_version: With which model.
        model: That model's facts: day, training window, content hash.
        champion_because: Why that model served, in words; empty if it never did.
        data_version: Hash of the inputs that were scored.
        code_version: Version of the code that scored.
        reasons: What moved the raw score most, strongest first.
        reasons_from: `said` if they were stored with the prediction, `computed` if only now, and
            `gone` if neither: the inputs have changed since.
    """

    key: str
    day: str
    probability: float
    threshold: float
    refer: bool
    scored_at: datetime
    superseded_at: datetime | None
    model_version: int
    model: Bundle
    champion_because: str
    data_version: str
    code_version: str
    reasons: tuple[Reason, ...]
    reasons_from: str


def listed(use_case: UseCase, lake: Lake, registry: Registry) -> list[Listed]:
    """Every registered version, newest first, and when it served."""
    reigns = history(lake, use_case)
    ends, out = [reign.at for reign in reigns[1:]], barred(reigns)
    found = []
    for version in registry.versions(use_case.name):
        served = tuple(
            (reign.at, end)
            for reign, end in zip(reigns, ends, strict=False)
            if reign.version == version.version
        )
        serves = bool(reigns) and reigns[-1].version == version.version
        since = reigns[-1].at if serves else None
        found.append(Listed(version, since, served, version.version in out))
    return found


def explain(use_case: UseCase, lake: Lake, registry: Registry, key: str) -> list[Explanation]:
    """All that was ever said about an application, the oldest first.

    Raises:
        UnknownApplication: There is no prediction for this key.
        RegistryError: The model that said it cannot be loaded.
    """
    table = f"{use_case.name}/predictions"
    said = lake.find(table, use_case.key, key)
    if len(said):
        said = said.sort_values(["day", "scored_at"], kind="stable")
    if said.empty:
        days = lake.rows_per_day(table)
        known = f"predictions of {min(days)} to {max(days)} are there" if days else "there are none"
        raise UnknownApplication(
            f"no prediction was made about {use_case.key} {key!r}: {known}. Check the id, or score "
            f"its day: ml-assets run scoring --day D."
        )
    reigns = history(lake, use_case)
    return [
        _explained(use_case, lake, registry, row, _because(reigns, row))
        for _, row in said.iterrows()
    ]


def _because(reigns: list[Reign], row: pd.Series) -> str:
    """Why the model served when it said this: a version may come back, for another reason."""
    told = [
        in_words(reigns, place)
        for place, reign in enumerate(reigns)
        # When something was said is known to the second.
        if reign.version == row["model_version"]
        and reign.at.replace(microsecond=0) <= row["scored_at"]
    ]
    return told[-1] if told else ""


def _explained(
    use_case: UseCase, lake: Lake, registry: Registry, row: pd.Series, because: str
) -> Explanation:
    version = int(row["model_version"])
    model = registry.load(use_case.name, version, registry.version(use_case.name, version).sha256)
    reasons, origin = read_reasons(row["reasons"]), "said"
    if not reasons:
        reasons, origin = _computed(use_case, lake, model, row)
    return Explanation(
        key=row[use_case.key],
        day=row["day"],
        probability=float(row["probability"]),
        threshold=model.threshold,
        refer=bool(row["refer"]),
        scored_at=row["scored_at"].to_pydatetime(),
        superseded_at=(
            None if pd.isna(row["superseded_at"]) else row["superseded_at"].to_pydatetime()
        ),
        model_version=version,
        model=model,
        champion_because=because,
        data_version=row["data_version"],
        code_version=row["code_version"],
        reasons=tuple(reasons),
        reasons_from=origin,
    )


def _computed(
    use_case: UseCase, lake: Lake, model: Bundle, row: pd.Series
) -> tuple[list[Reason], str]:
    """Reasons that were not stored, from the inputs as they are now, if they are still the same."""
    try:
        day = lake.read(f"{use_case.name}/features", row["day"], row["day"])
    except LakeError:
        return [], "gone"
    rows = day[day[use_case.key] == row[use_case.key]]
    if rows.empty or row_hashes(rows, use_case.inputs).iloc[0] != row["data_version"]:
        return [], "gone"
    return read_reasons(strongest_reasons(model, rows, _REASONS)[0]), "computed"
