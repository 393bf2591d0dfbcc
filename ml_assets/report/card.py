"""The model card: what a version is for, how good it is and who let it serve, as one HTML file.

Belongs here: what the card is told, and the sentences and choices (what is small, what stands out)
that need a rule. Marks are in `svg`, texts of numbers in `words`, the page in `card.html.jinja` and
`card.css`. The page asks for nothing from outside, and the same card gives the same bytes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Literal

from ml_assets.core.evaluation import Estimate, Evaluation, Part, Slice
from ml_assets.report import svg, words

Status = Literal["champion", "challenger", "retired"]

# Below this a group's figures are mostly luck: shown, but muted.
SMALL_ROWS, SMALL_POSITIVES = 200, 20

# So many bars are shown at once; the rest is folded away, and open in print.
_SHOWN = 12


@dataclass(frozen=True)
class Manifest:
    """The rows that a version learned from and was judged on.

    Attributes:
        table_version: Version of the features table.
        first_day: First day, YYYY-MM-DD.
        last_day: Last day.
        rows: Rows with a known outcome.
        positives: How many of them turned out positive.
        rows_unlabelled: Rows of these days without an outcome: left out.
        content_hash: SHA-256 over the rows.
    """

    table_version: int
    first_day: str
    last_day: str
    rows: int
    positives: int
    rows_unlabelled: int
    content_hash: str


@dataclass(frozen=True)
class Period:
    """A part of the split: days, inclusive, and rows."""

    first_day: str
    last_day: str
    rows: int


@dataclass(frozen=True)
class Guardrail:
    """A rule that a version must keep to be promoted, whether it did, and why, in numbers."""

    name: str
    passed: bool
    reason: str


@dataclass(frozen=True)
class Decision:
    """What the gate said of this version: the rule that decided, and the reason in words."""

    rule: str
    reason: str
    guardrails: tuple[Guardrail, ...] = ()


@dataclass(frozen=True)
class Approval:
    """One line of the version's history.

    Attributes:
        when: Day or instant, as text.
        event: Such as first, promoted, kept, promoted by hand, rolled back.
        by: A person, or the gate.
        reason: In words.
        served_from: First day that it served after this event; empty if it did not.
        served_to: Last such day; empty if it still serves.
    """

    when: str
    event: str
    by: str
    reason: str
    served_from: str = ""
    served_to: str = ""


@dataclass(frozen=True)
class Disagreement:
    """A row that champion and challenger judge differently.

    Attributes:
        key: Key of the row.
        day: Its day.
        champion: Probability by the champion.
        challenger: Probability by the challenger.
        reasons: The inputs that moved the challenger most, by name: values of a person have no
            place in a page that travels.
    """

    key: str
    day: str
    champion: float
    challenger: float
    reasons: str = ""


@dataclass(frozen=True)
class Card:
    """All that a model card shows; texts are plain, and escaped where they are shown.

    Attributes:
        use_case: Its name.
        description: What is predicted, in one sentence.
        purpose: What the model is for, and what it is not for.
        limits: What a reader must know before relying on it, a sentence or two each.
        owners: Who answers for it.
        version: In the registry.
        status: Whether it serves.
        as_of: Day of the model's partition, YYYY-MM-DD.
        bundle_sha256: Hash of `bundle.json`, which names the model.
        trees_sha256: Hash of `model.ubj`.
        code_version: Of the code that trained it.
        lock_sha256: Hash of `requirements.lock`; empty if unknown.
        seed: Of sampling and folds.
        manifest: The rows it rests on.
        split: `train`, `validation`, `calibration` and `holdout`.
        hyperparameters: XGBoost's parameters.
        hyperparameters_from: Where they came from: the tuning of a day, or the configuration; why.
        rounds: Trees kept by early stopping.
        evaluation: How good it is.
        decision: What the gate said; None if it has not judged this version yet.
        duplicates: Columns that repeat another, and that other: the trees do not see them.
        dropped: Source columns that no model sees, each with the reason.
        previous_version: The version before; None for the first.
        drift: Population stability index of each input on the holdout, against the rows that the
            previous version learned from.
        approvals: The version's history, oldest first.
        opponent: The version it was scored beside; None if there was none.
        disagreements: Where the two differ most, the largest difference first.
        row: A row in one word; its plural ends in s.
        event: The positive outcome in one word; its plural ends in s.
    """

    use_case: str
    description: str
    purpose: str
    limits: tuple[str, ...]
    owners: tuple[str, ...]
    version: int
    status: Status
    as_of: str
    bundle_sha256: str
    trees_sha256: str
    code_version: str
    lock_sha256: str
    seed: int
    manifest: Manifest
    split: Mapping[str, Period]
    hyperparameters: Mapping[str, str | int | float]
    hyperparameters_from: str
    rounds: int
    evaluation: Evaluation
    decision: Decision | None = None
    duplicates: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    previous_version: int | None = None
    drift: tuple[tuple[str, float], ...] = ()
    approvals: tuple[Approval, ...] = ()
    opponent: int | None = None
    disagreements: tuple[Disagreement, ...] = ()
    row: str = "application"
    event: str = "claim"


def model_card(card: Card) -> str:
    """The card as a complete HTML document, in UTF-8 text, with all it needs inside."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    evaluation = card.evaluation
    holdout = evaluation.parts["holdout"]
    share = holdout.positives / holdout.rows if holdout.rows else 0.0
    return environment.get_template("card.html.jinja").render(
        card=card,
        e=evaluation,
        holdout=holdout,
        train=evaluation.parts["train"],
        share=share,
        verdict=verdict(card),
        metric_tables=_metric_tables(card, words.baselines(share)),
        slices=_slices(card),
        slices_told=_slices_told(card),
        importance=_importance(card),
        drift=_drift(card),
        drift_told=drift_told(card),
        disagreements_told=disagreements_told(card),
        probabilities=svg.HALVES,
        calibration_told=_calibration_told(card),
        names=_names(card),
        top=_top(evaluation),
        small_rows=SMALL_ROWS,
        small_positives=SMALL_POSITIVES,
        svg=svg,
        w=words,
    )


def metric(part: Part, name: str) -> Estimate:
    """A metric of a part; not defined if the evaluation does not know it."""
    return part.metrics.get(name, Estimate(value=None, low=None, high=None))


def verdict(card: Card) -> str:
    """What the holdout says of this version, in one sentence without adjectives."""
    evaluation, event = card.evaluation, card.event
    holdout = evaluation.parts["holdout"]
    auc = metric(holdout, "roc_auc").value
    seen = (
        f"On {words.count(holdout.rows)} {card.row}s that it had not seen, version {card.version}"
    )
    ranked = (
        "could not be judged on ranking, since only one outcome came; it expected"
        if auc is None
        else f"put a {event} above a non-{event} {100 * auc:.0f} times in 100, and expected"
    )
    expected, actual = evaluation.expected_positives, evaluation.actual_positives
    if expected.value is None:
        return f"{seen} could not be judged."
    counted = f"{words.count(expected.value)} {event}s; {words.count(actual)} came"
    if expected.low is not None and expected.high is not None:
        if actual > expected.high:
            counted += ", more than chance explains"
        elif actual < expected.low:
            counted += ", fewer than chance explains"
        else:
            counted += ", within what chance allows"
    return f"{seen} {ranked} {counted}."


def is_small(one: Slice) -> bool:
    """Whether a group is too small for its figures to say much."""
    fewer = min(one.positives, one.rows - one.positives)
    return one.rows < SMALL_ROWS or fewer < SMALL_POSITIVES


def surprise(one: Slice) -> Literal["", "more", "fewer"]:
    """Whether more or fewer positives came than chance explains, at 95 %.

    The count's standard deviation is at most sqrt(n p (1 - p)) with p the mean probability, since
    unequal probabilities vary less; so this is on the careful side.
    """
    mean = one.expected / one.rows if one.rows else 0.0
    deviation = math.sqrt(max(one.rows * mean * (1 - mean), 0.0))
    if abs(one.positives - one.expected) <= max(1.96 * deviation, 0.5):
        return ""
    return "more" if one.positives > one.expected else "fewer"


def drift_told(card: Card) -> str:
    """Drift in one sentence, or why there is none to show."""
    if not card.drift:
        if card.previous_version is None:
            return "This is the first version, so there is no earlier one to compare with."
        return f"No comparison with version {card.previous_version} has been recorded."
    large = sum(value > svg.PSI_LARGE for _, value in card.drift)
    some = sum(svg.PSI_STABLE < value <= svg.PSI_LARGE for _, value in card.drift)
    stable = sum(value <= svg.PSI_STABLE for _, value in card.drift)
    against = (
        "the previous version"
        if card.previous_version is None
        else f"version {card.previous_version}"
    )
    return (
        f"How far the newest days have moved from those that {against} learned from: of "
        f"{len(card.drift)} inputs, {large} moved much and {some} a little; "
        f"{stable} {'is' if stable == 1 else 'are'} stable."
    )


def disagreements_told(card: Card) -> str:
    """What the table of disagreements shows, or why there is none."""
    if card.disagreements:
        beside = "the other model" if card.opponent is None else f"version {card.opponent}"
        return (
            f"Version {card.version} and {beside} scored the same {card.row}s; these are the "
            f"{len(card.disagreements)} on which they differ most."
        )
    if card.opponent is not None:
        return f"No {card.row} scored by both this version and version {card.opponent} is recorded."
    return "No other version has been scored beside this one, so there is nothing to compare."


_METHODS = {
    "platt": "Platt scaling (a straight line in log-odds)",
    "beta": "beta calibration (a curve of three parameters)",
    "isotonic": "isotonic regression (a rising staircase)",
}


def _calibration_told(card: Card) -> str:
    method = card.evaluation.calibration.method
    if method == "none":
        return (
            "The trees’ own probabilities are used as they are: on the calibration days no "
            "correction did better by more than noise, or there were too few to compare."
        )
    return (
        f"The trees’ own probabilities were corrected by {_METHODS.get(method, method)}, chosen on "
        "the calibration days."
    )


def _names(card: Card) -> tuple[str, str]:
    """Names of the two models that disagree: the champion, then the challenger."""
    if card.opponent is None:
        return "Champion", "Challenger"
    return f"Version {card.opponent}", f"Version {card.version}"


@dataclass(frozen=True)
class _MetricRow:
    measure: words.Measure
    holdout: Estimate
    train: Estimate
    reference: float | None


@dataclass(frozen=True)
class _MetricTable:
    title: str
    scale: svg.Scale
    rows: tuple[_MetricRow, ...]


def _metric_tables(card: Card, references: Mapping[str, float]) -> tuple[_MetricTable, ...]:
    holdout, train = (card.evaluation.parts[name] for name in ("holdout", "train"))
    groups = words.metric_groups(card.event)
    known = {measure.name for group in groups for measure in group.measures}
    # A metric added later shows up at once, if without an explanation.
    others = tuple(words.Measure(name, name, "") for name in holdout.metrics if name not in known)
    if others:
        groups += (words.Group("Others", others, None, None),)
    tables = []
    for group in groups:
        rows = tuple(
            _MetricRow(
                measure,
                metric(holdout, measure.name),
                metric(train, measure.name),
                references.get(measure.name),
            )
            for measure in group.measures
        )
        shown = [row.reference for row in rows]
        for row in rows:
            for estimate in (row.holdout, row.train):
                shown += [estimate.value, estimate.low, estimate.high]
        tables.append(
            _MetricTable(group.title, svg.scale_of(shown, low=group.low, high=group.high), rows)
        )
    return tuple(tables)


@dataclass(frozen=True)
class _SliceRow:
    slice: Slice
    small: bool
    surprise: str
    radius: float


@dataclass(frozen=True)
class _Slices:
    auc: svg.Scale
    loss: svg.Scale
    overall_auc: float | None
    overall_loss: float | None
    groups: tuple[tuple[str, tuple[_SliceRow, ...]], ...]


def _slices(card: Card) -> _Slices:
    slices, holdout = card.evaluation.slices, card.evaluation.parts["holdout"]
    overall = [metric(holdout, name).value for name in ("roc_auc", "log_loss")]
    largest = max((one.rows for one in slices), default=1)
    rows = [
        _SliceRow(
            one,
            is_small(one),
            surprise(one),
            # Area by size, as forest plots have it; never too small to see.
            max(2.2, 5.5 * math.sqrt(one.rows / max(largest, 1))),
        )
        for one in slices
    ]
    # The axes follow the groups that say something; whiskers of small ones may be cut.
    telling = [one for one in slices if not is_small(one)] or list(slices)
    return _Slices(
        svg.scale_of(
            # Small groups too, so that none is drawn at an end where it is not.
            [
                overall[0],
                *(one.roc_auc.value for one in card.evaluation.slices),
                *_ends([one.roc_auc for one in telling]),
            ],
            high=1,
            ticks=2,
        ),
        svg.scale_of(
            [
                overall[1],
                *(one.log_loss.value for one in card.evaluation.slices),
                *_ends([one.log_loss for one in telling]),
            ],
            low=0,
            ticks=2,
        ),
        overall[0],
        overall[1],
        tuple(
            (column, tuple(group))
            for column, group in groupby(rows, key=lambda row: row.slice.column)
        ),
    )


def _ends(estimates: Sequence[Estimate]) -> list[float | None]:
    return [end for one in estimates for end in (one.low, one.value, one.high)]


def _slices_told(card: Card) -> str:
    slices, event = card.evaluation.slices, card.event
    if not slices:
        return "No groups were declared for this use case."
    judged = [one for one in slices if not is_small(one)]
    surprising = sum(bool(surprise(one)) for one in judged)
    by_luck = 0.05 * len(judged)
    told = (
        f"In {surprising} of the {len(judged)} larger groups, more or fewer {event}s came than "
        f"chance explains; even were all probabilities right, luck would make "
        f"{f'about {by_luck:.0f}' if by_luck >= 1 else 'less than one'} look so."
    )
    small = len(slices) - len(judged)
    if small:
        told += (
            f" {small} {'group is' if small == 1 else 'groups are'} too small to judge, and grey."
        )
    return told


@dataclass(frozen=True)
class _Bar:
    name: str
    value: float
    text: str
    more: str
    style: str


@dataclass(frozen=True)
class _Bars:
    scale: svg.Scale
    first: tuple[_Bar, ...]
    rest: tuple[_Bar, ...]


def _importance(card: Card) -> _Bars:
    found = card.evaluation.importance
    scale = svg.scale_of([one.contribution for one in found], low=0, ticks=3, inset=0)
    total = sum(one.gain for one in found) or 1.0
    bars = [
        _Bar(
            one.feature,
            one.contribution,
            words.number(one.contribution),
            words.percent(one.gain / total),
            "after",
        )
        for one in found
    ]
    return _Bars(scale, *_folded(bars))


def _drift(card: Card) -> _Bars:
    def told(value: float) -> tuple[str, str]:
        if math.isnan(value):
            return words.UNDEFINED, "muted"
        if value > svg.PSI_LARGE:
            return "large shift", "alarm"
        return ("some shift", "after") if value > svg.PSI_STABLE else ("stable", "muted")

    ordered = sorted(card.drift, key=lambda one: (math.isnan(one[1]), -one[1], one[0]))
    bars = [
        _Bar(name, value, "–" if math.isnan(value) else words.number(value), *told(value))
        for name, value in ordered
    ]
    moved = sum(bar.style != "muted" for bar in bars)
    ticks = (0, svg.PSI_STABLE, svg.PSI_LARGE, svg.PSI_SHOWN)
    return _Bars(svg.Scale(0, svg.PSI_SHOWN, ticks, inset=0), *_folded(bars, max(moved, _SHOWN)))


def _folded(bars: Sequence[_Bar], shown: int = _SHOWN) -> tuple[tuple[_Bar, ...], tuple[_Bar, ...]]:
    # Folding two or three away would cost the reader a click and save no room.
    if len(bars) <= shown + 3:
        return tuple(bars), ()
    return tuple(bars[:shown]), tuple(bars[shown:])


def _top(evaluation: Evaluation) -> float:
    """Where both reliability charts end: the largest share they show, rounded up to a tenth."""
    bins = (*evaluation.calibration.reliability_before, *evaluation.calibration.reliability_after)
    shown = [one.promised for one in bins]
    shown += [one.realised.value for one in bins if one.realised.value is not None]
    return min(1.0, max(0.1, math.ceil(10 * max(shown, default=1.0) - 1e-9) / 10))
