"""From `model` to `champion`: who serves from a day on, and why; one decision a day."""

import json
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from ml_assets.assets.common import code_version, preview, spec
from ml_assets.assets.training import labelled_rows
from ml_assets.champions import GATE, Reign, barred, deciding, history, record, remedy
from ml_assets.changes import now
from ml_assets.core.bundle import Bundle, encode, predict
from ml_assets.core.contract import ContractError
from ml_assets.core.evaluation import slice_groups
from ml_assets.core.explanations import read_reasons, strongest_reasons
from ml_assets.core.gate import (
    Difference,
    Guardrail,
    Limits,
    Unfit,
    Verdict,
    decide,
    missing_guardrail,
    paired_bootstrap,
    row_log_loss,
    slice_guardrail,
    slope_guardrail,
    window_guardrail,
)
from ml_assets.core.tables import Champion
from ml_assets.environment import Environment, GateSettings
from ml_assets.failures import clear_failures
from ml_assets.partitions import daily
from ml_assets.resources.lake import Lake
from ml_assets.resources.registry import Registry, RegistryError
from ml_assets.use_case import UseCase

_DISAGREEMENTS = 10  # shown of a comparison, each with so many reasons
_REASONS = 3


@dataclass(frozen=True)
class Judgement:
    """What the gate found out about a challenger.

    Attributes:
        verdict: Whether it shall serve, and why.
        guardrails: The limits, and whether it keeps them.
        difference: How it compares with the champion; None if it could not be compared.
        previous_log_loss: The champion's log loss on the same rows.
        disagreements: Rows on which the two differ most, with both probabilities.
        against: The champion's version; None if none served.
    """

    verdict: Verdict
    guardrails: tuple[Guardrail, ...] = ()
    difference: Difference | None = None
    previous_log_loss: float | None = None
    disagreements: tuple[dict[str, Any], ...] = ()
    against: int | None = None


def champion_asset(use_case: UseCase, environment: Environment) -> dg.AssetsDefinition:
    """Build `champion` of a use case."""
    table = f"{use_case.name}/champion"
    gate, settings = environment.gate, environment.training
    limits = gate_limits(gate)

    @dg.asset(
        **spec(
            use_case,
            "champion",
            "Step 5: which model serves from this day on.\n\n"
            "The challenger if it is surely better than the model that served before, or, once "
            "that has grown old, surely not worse; and if it breaks no guardrail. *reason* under "
            "*Events* tells why. A person overrules it by `ml-assets promote` or `rollback`.",
            Champion.to_schema(),
            kinds={"mlflow", "deltalake"},
        ),
        code_version=code_version(
            use_case,
            *(f"core/{name}.py" for name in ("gate", "bundle", "evaluation")),
            settings=gate.model_dump_json(),
        ),
        partitions_def=daily(use_case, environment.time_zone),
        # One decision at a time: each rests on the one before.
        pool=f"{use_case.name}_champion",
        ins={
            "training_set": dg.AssetIn(key=[use_case.name, "training_set"]),
            "model": dg.AssetIn(key=[use_case.name, "model"]),
        },
    )
    def champion(
        context: dg.AssetExecutionContext,
        training_set: pd.DataFrame,
        model: pd.DataFrame,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
    ) -> pd.DataFrame:
        day, started = context.partition_key, now()
        manifest, challenger = training_set.iloc[0].to_dict(), model.iloc[0].to_dict()
        with clear_failures(), deciding(environment, use_case):
            if manifest["content_hash"] != challenger["content_hash"]:
                raise ContractError(
                    f"the training set of {day} was made anew after its model. Materialise "
                    f"{use_case.name}/model for {day}, then decide again."
                )
            decided, reigns = lake.rows_per_day(table), history(lake, use_case)
            known = lake.read(table, day, day) if day in decided else None
            if known is not None and _spoken_since(known["decided_at"].iloc[0], reigns):
                context.log.warning(
                    f"the decision about {day} stands, and version {reigns[-1].version} goes on "
                    f"serving: {reigns[-1].by} has decided so since"
                )
                registry.set_alias(use_case.name, "champion", reigns[-1].version)
                return known
            # A run that was cut short may have left its decision in the history alone.
            decisions = {*decided, *(reign.day for reign in reigns if reign.by == GATE)}
            is_past = day < max(decisions, default=day)
            previous = (
                # Of a day of the past: the decision before it, whoever serves now.
                lake.newest(table, before=day)
                if is_past
                else _served(day, challenger["version"], reigns)
            )
            judgement = _judge(day, manifest, challenger, previous, reigns, is_past, lake, registry)
            if is_past:
                judgement = _in_retrospect(judgement)
            promoted = judgement.verdict.promote
            serving = challenger if promoted or previous is None else previous
            if not is_past or known is None:
                registry.attach(
                    use_case.name, challenger["version"], {"gate.json": _as_json(judgement)}
                )
            if not is_past:
                now_serving = _let_serve(
                    context, day, serving, judgement.verdict, previous, reigns, lake
                )
                registry.set_alias(use_case.name, "champion", now_serving)
        context.log.info(judgement.verdict.reason)
        row = _row(day, challenger, previous, serving, judgement)
        context.add_output_metadata(
            {
                **{name: row[name] for name in ("decision", "version", "reason")},
                "challenger_log_loss": challenger["log_loss"],
                "guardrails": preview(
                    pd.DataFrame([asdict(each) for each in judgement.guardrails]), rows=9
                ),
                "disagreements": preview(
                    pd.DataFrame(judgement.disagreements), rows=_DISAGREEMENTS
                ),
            }
        )
        numbers = ["previous_log_loss", "difference_low", "difference_high"]
        frame = pd.DataFrame([row]).astype(
            {"previous_version": "Int64", **dict.fromkeys(numbers, "float64")}
        )
        if known is not None and known[list(frame)].astype(frame.dtypes.to_dict()).equals(frame):
            return known  # decided alike before: that is when it was decided
        return frame.assign(decided_at=pd.DatetimeIndex([started]).as_unit("us"))

    def _judge(
        day: str,
        manifest: dict[str, Any],
        challenger: dict[str, Any],
        previous: dict[str, Any] | None,
        reigns: list[Reign],
        is_past: bool,
        lake: Lake,
        registry: Registry,
    ) -> Judgement:
        """Let both models score the challenger's holdout, and decide."""
        version = challenger["version"]
        first, last = challenger["holdout_first_day"], challenger["holdout_last_day"]
        holdout = labelled_rows(use_case, lake, manifest, first, last)
        bundle = registry.load(use_case.name, version, challenger["sha256"])
        if previous is None:
            guardrails = _guardrails(challenger, bundle, holdout)
            if is_past:
                reason = (
                    f"challenger version {version} is taken as the first: the gate has decided "
                    "about no earlier day"
                )
                return Judgement(Verdict(False, "first", reason), guardrails)
            _require_fit(version, guardrails)
            reason = f"challenger version {version} is promoted: none served before"
            return Judgement(Verdict(True, "first", reason), guardrails)
        if previous["version"] == version:
            reason = f"challenger version {version} serves already"
            return Judgement(Verdict(False, "not_shown", reason))
        if version in (out := barred(reigns)):
            deed = out[version]
            reason = (
                f"challenger version {version} stays challenger: {deed.by} rolled it back on "
                f"{deed.day}, because: {deed.reason}. ml-assets promote {version} lifts that"
            )
            return Judgement(Verdict(False, "rolled_back", reason))
        if not is_past and (until := _held_until(reigns, gate.hold_after_rollback_days)) > day:
            reason = (
                f"challenger version {version} stays challenger: after the rollback of "
                f"{reigns[-1].day} ({reigns[-1].reason}) none is promoted before {until}, lest one "
                f"from the same rows bring the trouble back. ml-assets promote {version} lifts that"
            )
            return Judgement(Verdict(False, "on_hold", reason))
        try:
            theirs_bundle = registry.load(use_case.name, previous["version"], previous["sha256"])
        except RegistryError as error:
            raise RegistryError(f"{error} {remedy(lake, use_case, registry)}") from error
        # The champion may have been split otherwise, and have learned from some of these days.
        split = theirs_bundle.facts["split"]
        holdout = holdout[holdout["day"] > max(split["calibration"])]
        if holdout.empty:
            reason = (
                f"challenger version {version} stays challenger: the champion has "
                f"learned from every day of the holdout, {first} to {last}"
            )
            return Judgement(Verdict(False, "not_shown", reason))
        ours, theirs = (
            predict(each, holdout, settings.threads) for each in (bundle, theirs_bundle)
        )
        outcome = holdout[use_case.target].to_numpy(dtype="int8")
        difference = paired_bootstrap(
            ours,
            theirs,
            outcome,
            confidence=gate.confidence,
            resamples=gate.resamples,
            seed=settings.seed,
        )
        guardrails = (
            *_guardrails(challenger, bundle, holdout),
            slice_guardrail(
                ours,
                theirs,
                outcome,
                slice_groups(holdout, use_case.slices),
                limits,
                confidence=gate.confidence,
                resamples=gate.resamples,
                seed=settings.seed,
            ),
        )
        trained = date.fromisoformat(theirs_bundle.facts["as_of"])
        verdict = decide(
            difference,
            margin=gate.margin,
            champion_age_days=(date.fromisoformat(day) - trained).days,
            refresh_after_days=gate.refresh_after_days,
            challenger_version=version,
            guardrails=guardrails,
        )
        return Judgement(
            verdict,
            guardrails,
            difference,
            float(row_log_loss(theirs, outcome).mean()),
            _disagreements(bundle, holdout, ours, theirs),
            previous["version"],
        )

    def _guardrails(
        challenger: dict[str, Any], bundle: Bundle, holdout: pd.DataFrame
    ) -> tuple[Guardrail, ...]:
        missing = np.isnan(encode(holdout, bundle.inputs, bundle.vocabulary)).mean(axis=0)
        return (
            window_guardrail(len(holdout), limits),
            slope_guardrail(
                challenger["calibration_slope"],
                challenger["calibration_slope_low"],
                challenger["calibration_slope_high"],
                limits,
            ),
            missing_guardrail(
                bundle.facts["missing_share"],
                dict(zip(bundle.inputs, missing.tolist(), strict=True)),
                limits,
            ),
        )

    def _disagreements(
        bundle: Bundle, holdout: pd.DataFrame, ours: np.ndarray, theirs: np.ndarray
    ) -> tuple[dict[str, Any], ...]:
        most = np.argsort(-np.abs(ours - theirs), kind="stable")[:_DISAGREEMENTS]
        rows = holdout.iloc[most]
        reasons = strongest_reasons(bundle, rows, _REASONS)
        return tuple(
            {
                "key": str(key),
                "day": str(its_day),
                "champion": round(float(their), 4),
                "challenger": round(float(our), 4),
                # Names alone: values and outcomes of a person have no place in a page that travels.
                "reasons": ", ".join(each.feature for each in read_reasons(text)),
            }
            for key, its_day, their, our, text in zip(
                rows[use_case.key],
                rows["day"],
                theirs[most],
                ours[most],
                reasons,
                strict=True,
            )
        )

    def _let_serve(
        context: dg.AssetExecutionContext,
        day: str,
        serving: dict[str, Any],
        verdict: Verdict,
        previous: dict[str, Any] | None,
        reigns: list[Reign],
        lake: Lake,
    ) -> int:
        """Add the decision to the history, unless it stands there or a person has spoken since.

        Returns:
            The version that serves from now on.
        """
        own = [place for place, reign in enumerate(reigns) if _is_own(reign, day)]
        if own and any(reign.by != GATE for reign in reigns[own[0] :]):
            context.log.warning(
                f"version {reigns[-1].version} goes on serving: {reigns[-1].by} decided so after "
                f"the gate had decided about {day}"
            )
            return reigns[-1].version
        if reigns and reigns[-1].version == serving["version"]:
            return reigns[-1].version
        event = "first" if previous is None else "promoted" if verdict.promote else "kept"
        reign = Reign(
            day, now(), serving["version"], serving["sha256"], event, verdict.rule, GATE,
            verdict.reason,
        )  # fmt: skip
        return record(lake, use_case, reign).version

    return champion


def gate_limits(gate: GateSettings) -> Limits:
    """The guardrails as the gate takes them."""
    settings = gate.guardrails
    return Limits(
        min_holdout_rows=settings.min_holdout_rows,
        calibration_slope=(settings.calibration_slope_low, settings.calibration_slope_high),
        slice_margin=settings.slice_margin,
        min_slice_rows=settings.min_slice_rows,
        max_missing_increase=settings.max_missing_increase,
    )


def _require_fit(version: int, guardrails: tuple[Guardrail, ...]) -> None:
    if broken := [each.finding for each in guardrails if not each.holds]:
        raise Unfit(
            f"version {version} would be the first to serve, and breaks a guardrail: "
            f"{'; '.join(broken)}. Train on more days, change gate.guardrails, or take it as it is "
            f"by hand: ml-assets promote {version} --because TEXT."
        )


def _is_own(reign: Reign, day: str) -> bool:
    return reign.by == GATE and reign.day == day


def _spoken_since(decided_at: datetime, reigns: list[Reign]) -> bool:
    """Whether a person has decided who serves since the gate did."""
    return any(reign.by != GATE and reign.at > decided_at for reign in reigns)


def _held_until(reigns: list[Reign], days: int) -> str:
    """The first day about which the gate may promote again; long past unless just rolled back."""
    if not days or not reigns or reigns[-1].event != "rolled_back":
        return ""
    return (date.fromisoformat(reigns[-1].day) + timedelta(days=days)).isoformat()


def _served(day: str, challenger: int, reigns: list[Reign]) -> dict[str, Any] | None:
    """Who served before the gate let this challenger serve, or who serves now if it never did.

    A run that was cut short after it had added to the history finds its own row there, and decides
    as if it had not. A day whose model was trained anew is another matter: that one is judged
    against who serves, as any challenger is.
    """
    own = [
        place
        for place, reign in enumerate(reigns)
        if _is_own(reign, day) and reign.version == challenger
    ]
    before = reigns[: own[0]] if own else reigns
    return asdict(before[-1]) if before else None


def _in_retrospect(judgement: Judgement) -> Judgement:
    reason = f"{judgement.verdict.reason} (decided in retrospect: who serves does not change)"
    return replace(judgement, verdict=replace(judgement.verdict, reason=reason))


def _row(
    day: str,
    challenger: dict[str, Any],
    previous: dict[str, Any] | None,
    serving: dict[str, Any],
    judgement: Judgement,
) -> dict[str, Any]:
    verdict, difference = judgement.verdict, judgement.difference
    return {
        "day": day,
        "version": serving["version"],
        "sha256": serving["sha256"],
        "decision": "first" if previous is None else "promoted" if verdict.promote else "kept",
        "rule": verdict.rule,
        "reason": verdict.reason,
        "challenger_version": challenger["version"],
        "challenger_log_loss": challenger["log_loss"],
        "previous_version": previous and previous["version"],
        "previous_log_loss": judgement.previous_log_loss,
        "difference_low": difference and difference.low,
        "difference_high": difference and difference.high,
    }


def _as_json(judgement: Judgement) -> bytes:
    content = asdict(judgement)
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode()
