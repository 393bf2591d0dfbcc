"""The monitoring page: what is red, since when, and what to do; then all that a day's look found.

Belongs here: what the page is told, and the choices that need a rule. Marks are in `svg`, texts of
numbers in `words`, the page in `monitoring.html.jinja`, `card.css` and `monitoring.css`. The page
asks for nothing from outside, and the same rows give the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup, escape

from ml_assets.core.evaluation import Estimate
from ml_assets.core.tables import TROUBLE
from ml_assets.core.texts import visible
from ml_assets.report import svg, words

# Days before the page's own that its charts show, itself included.
SHOWN_DAYS = 28

# So many features are shown at once; the rest is folded away, and open in print.
_SHOWN = 12

_TITLES = {
    "inputs": "Inputs",
    "outputs": "Outputs",
    "volume": "Volume",
    "outcomes": "Outcomes",
    "weeks": "Weeks",
    "estimate": "Estimate",
}
_MEASURES = {
    "roc_auc": ("ROC AUC", "ranking; 0.5 is a coin toss, 1 is perfect", 3),
    "log_loss": ("Log loss", "error of the probabilities; lower is better", 4),
    "brier": ("Brier score", "mean squared error; lower is better", 4),
    "calibration_slope": ("Calibration slope", "1 is right; below it, too extreme", 2),
    "calibration_intercept": ("Calibration intercept", "0 is right; above it, too low", 2),
}


@dataclass(frozen=True)
class Page:
    """All that a monitoring page shows; texts are plain, and escaped where they are shown.

    Attributes:
        use_case: Its name.
        description: What is predicted, in one sentence.
        owners: Who answers for it.
        day: The day that was looked at, YYYY-MM-DD.
        maturity_days: Age at which an outcome is final.
        remedies: What to do about trouble, by section of the table.
        rows: Rows of `core.tables.Monitoring`: of the day, and of days before it.
        row: A row in one word; its plural ends in s.
        event: The positive outcome in one word; its plural ends in s.
    """

    use_case: str
    description: str
    owners: tuple[str, ...]
    day: str
    maturity_days: int
    remedies: Mapping[str, str]
    rows: pd.DataFrame
    row: str = "application"
    event: str = "claim"


@dataclass(frozen=True)
class Finding:
    """Something to look at: where, what, since when."""

    section: str
    subject: str
    sentence: str
    since: str


@dataclass(frozen=True)
class _Feature:
    name: str
    psi: float
    text: str
    state: str
    style: str


@dataclass(frozen=True)
class _Figure:
    label: str
    meaning: str
    digits: int
    came: Estimate
    promised: Estimate
    estimated: Estimate
    scale: svg.Scale
    state: str


@dataclass(frozen=True)
class _Model:
    name: str
    rows: int
    figures: tuple[_Figure, ...]
    is_champion: bool
    positives: Estimate
    positives_expected: Estimate


@dataclass(frozen=True)
class _Week:
    monday: str
    rows: int
    expected: Estimate
    actual: float
    state: str


def monitoring_page(page: Page) -> str:
    """The page as a complete HTML document, in UTF-8 text, with all it needs inside."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    today = page.rows[page.rows["day"] == page.day]
    red = findings(today, TROUBLE)
    features = _features(today)
    return environment.get_template("monitoring.html.jinja").render(
        page=page,
        red=red,
        watched=findings(today, ("watch",)),
        unknown=findings(
            today, ("unknown", "no model", "no rows", "too few rows", "too little history")
        ),
        remedies=[
            (_TITLES[section], page.remedies[section])
            for section in _TITLES
            if section in page.remedies and any(one.section == section for one in red)
        ],
        titles=_TITLES,
        verdict=verdict(page, red),
        features=features,
        shown=_SHOWN,
        psi_scale=svg.Scale(0.0, svg.PSI_SHOWN, (0.0, 0.1, 0.25, 0.5), inset=0.0),
        told={section: _told(today, section) for section in _TITLES},
        output=_facts(today, "outputs"),
        volume=_facts(today, "volume"),
        charts=_charts(page),
        ranking=_ranking(_models(today, "outcomes") or _models(today, "estimate")),
        outcomes=_models(today, "outcomes"),
        estimates=_models(today, "estimate"),
        weeks=_weeks(today),
        code=_code,
        svg=svg,
        w=words,
    )


def findings(rows: pd.DataFrame, states: Sequence[str]) -> list[Finding]:
    """The rows in one of these states, in the order of the page's sections."""
    order = list(_TITLES)
    here = rows[rows["state"].isin(states)]
    found = [
        Finding(
            one.section,
            visible(one.subject),
            visible(one.sentence or ""),
            one.since if isinstance(one.since, str) else "",
        )
        for one in here.itertuples()
    ]
    return sorted(found, key=lambda one: (order.index(one.section), one.since, one.subject))


def verdict(page: Page, red: Sequence[Finding]) -> str:
    """What the day's look found, in one sentence without adjectives."""
    if not red:
        return "Nothing is red."
    places = [title for section, title in _TITLES.items() if any(r.section == section for r in red)]
    since = min((one.since for one in red if one.since), default=page.day)
    count = "One finding is" if len(red) == 1 else f"{len(red)} findings are"
    return f"{count} red, in {' and '.join(places).lower()}; the oldest since {since}."


def _code(text: str) -> Markup:
    """A text whose parts between backticks are shown as code."""
    parts = [
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def _told(rows: pd.DataFrame, section: str) -> str:
    """Why a section has nothing to show; empty if it has."""
    here = rows[(rows["section"] == section) & (rows["measure"] == "rows")]
    named = here[here["subject"].isin(["all", "applications"])]
    return "" if named.empty else visible(named["sentence"].iloc[0] or "")


def _facts(rows: pd.DataFrame, section: str) -> dict[str, Estimate]:
    """The figures of a section with one subject."""
    here = rows[(rows["section"] == section) & (rows["subject"] != "all")]
    return {one.measure: _estimate(one) for one in here.itertuples()}


def _features(rows: pd.DataFrame) -> list[_Feature]:
    """The day's features, those in trouble first, then by how far they moved."""
    here = rows[(rows["section"] == "inputs") & (rows["measure"] == "psi")]
    rank = {**dict.fromkeys(TROUBLE, 0), "watch": 1}
    found = []
    for one in here.itertuples():
        psi = float(one.value) if pd.notna(one.value) else 0.0
        since = f", since {one.since}" if isinstance(one.since, str) else ""
        style = {"drift": "alarm", "watch": "after"}.get(one.state, "before-bar")
        text = words.number(psi, 3) if pd.notna(one.value) else words.UNDEFINED
        found.append(
            (
                rank.get(one.state, 2),
                _Feature(visible(one.subject), psi, text, f"{one.state}{since}", style),
            )
        )
    ordered = sorted(found, key=lambda pair: (pair[0], -pair[1].psi, pair[1].name))
    return [feature for _, feature in ordered]


def _models(rows: pd.DataFrame, section: str) -> list[_Model]:
    """Realised or estimated figures per model: champions first, each the newest version first."""
    here = rows[(rows["section"] == section) & (rows["subject"] != "all")]
    found = []
    for name, own in here.groupby("subject"):
        by_name = {one.measure: one for one in own.itertuples()}
        figures = tuple(_figure(measure, by_name) for measure in _MEASURES if measure in by_name)
        found.append(
            _Model(
                name=str(name),
                rows=int(own["rows"].max()),
                figures=figures,
                is_champion=str(name).startswith("champion"),
                positives=_estimate(by_name.get("positives")),
                positives_expected=_estimate(by_name.get("positives_expected")),
            )
        )
    return sorted(found, key=lambda one: (not one.is_champion, -int(one.name.split()[-1])))


def _ranking(models: Sequence[_Model]) -> Estimate:
    """The champion's ROC AUC, on most rows if there are several."""
    own = [one for one in models if one.is_champion and one.figures]
    most = max(own, key=lambda one: one.rows, default=None)
    return most.figures[0].came if most else _estimate(None)


def _figure(measure: str, by_name: Mapping[str, object]) -> _Figure:
    label, meaning, digits = _MEASURES[measure]
    came, promised, estimated = (
        _estimate(by_name.get(name))
        for name in (measure, f"{measure}_promised", f"{measure}_estimated")
    )
    all_values = [
        value for one in (came, promised, estimated) for value in (one.value, one.low, one.high)
    ]
    state = getattr(by_name[measure], "state", None)
    return _Figure(
        label,
        meaning,
        digits,
        came,
        promised,
        estimated,
        svg.scale_of(all_values, ticks=2),
        state if isinstance(state, str) else "",
    )


def _weeks(rows: pd.DataFrame) -> list[_Week]:
    here = rows[rows["section"] == "weeks"]
    found = []
    for monday, own in here.groupby("subject"):
        by_name = {one.measure: one for one in own.itertuples()}
        actual = by_name["actual"]
        found.append(
            _Week(
                str(monday),
                int(actual.rows),
                _estimate(by_name["expected"]),
                float(actual.value),
                str(actual.state),
            )
        )
    return found


def _charts(page: Page) -> dict[str, object]:
    """The figures day by day, of all days that the page was given."""
    rows = page.rows

    def moments(section: str, measure: str, subject: str) -> list[svg.Moment]:
        here = rows[
            (rows["section"] == section)
            & (rows["measure"] == measure)
            & (rows["subject"] == subject)
        ].sort_values("day")
        return [_moment(one) for one in here.itertuples()]

    inputs = rows[(rows["section"] == "inputs") & (rows["measure"] == "psi")]
    reds = inputs.assign(red=inputs["state"].isin(TROUBLE)).groupby("day")["red"].sum()
    return {
        "reds": svg.series(
            "reds",
            "Inputs that had drifted, day by day",
            "inputs that drifted",
            [svg.Moment(str(day), float(count)) for day, count in reds.items()],
            low=0,
            high=max(4.0, float(reds.max())) if len(reds) else 4.0,
        ),
        "mean": svg.series(
            "mean",
            "Mean probability day by day",
            "mean probability",
            moments("outputs", "mean", "probability"),
            low=0,
            is_share=True,
        ),
        "referred": svg.series(
            "referred",
            "Share of referred applications day by day",
            "referred",
            moments("outputs", "referred_share", "probability"),
            low=0,
            is_share=True,
        ),
        "volume": _volume_chart(page, moments("volume", "rows", "applications")),
        "outcomes": _outcomes_chart(rows),
        "weeks": _weeks_chart(page),
    }


def _volume_chart(page: Page, moments: list[svg.Moment]) -> object:
    bare = [svg.Moment(one.day, one.value) for one in moments]
    return svg.series(
        "volume-chart",
        f"{page.row.capitalize()}s day by day, and what is normal",
        f"{page.row}s",
        bare,
        band=[one for one in moments if one.low is not None],
        low=0,
    )


def _outcomes_chart(rows: pd.DataFrame) -> object:
    """Realised ROC AUC of who spoke most, and what had been estimated of the same rows."""
    here = rows[
        (rows["section"] == "outcomes")
        & rows["subject"].str.startswith("champion")
        & rows["measure"].isin(["roc_auc", "roc_auc_estimated"])
    ]
    came: list[svg.Moment] = []
    said: list[svg.Moment] = []
    for _, own in here.sort_values("day").groupby("day"):
        most = own.sort_values("rows", kind="stable")["subject"].iloc[-1]
        for one in own[own["subject"] == most].itertuples():
            (came if one.measure == "roc_auc" else said).append(_moment(one))
    return svg.series(
        "outcomes-chart", "Realised and estimated ROC AUC day by day", "ROC AUC", came, other=said
    )


def _weeks_chart(page: Page) -> object:
    weeks = _weeks(page.rows[page.rows["day"] == page.day])
    return svg.series(
        "weeks-chart",
        f"Expected and actual {page.event}s of each week",
        f"{page.event}s in the week",
        [svg.Moment(one.monday, one.actual) for one in weeks],
        other=[
            svg.Moment(one.monday, one.expected.value, one.expected.low, one.expected.high)
            for one in weeks
        ],
        low=0,
    )


def _moment(one: object) -> svg.Moment:
    found = _estimate(one)
    return svg.Moment(str(one.day), found.value, found.low, found.high)  # type: ignore[attr-defined]


def _estimate(one: object | None) -> Estimate:
    """A row's figure; not defined where there is no such row, or where its value is missing."""
    if one is None:
        return Estimate(value=None, low=None, high=None)
    value, low, high = (getattr(one, name) for name in ("value", "low", "high"))
    return Estimate(
        value=None if pd.isna(value) else float(value),
        low=None if pd.isna(low) else float(low),
        high=None if pd.isna(high) else float(high),
    )
