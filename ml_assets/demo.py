"""`ml-assets demo`: the main job from start to end, on simulated applications.

It finds what is missing or outdated and runs only that, so running it again continues.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pandas as pd
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ml_assets.build import build_definitions, resources
from ml_assets.champions import champion
from ml_assets.changes import changed_days, extracted_fingerprints, source_days, today
from ml_assets.core.scoring import standing
from ml_assets.environment import Environment, mask_url
from ml_assets.model_cards import card_file
from ml_assets.monitoring_pages import page_file
from ml_assets.partitions import days_between, ranges
from ml_assets.resources.lake import Lake
from ml_assets.runs import close_dead_runs, run_days
from ml_assets.schedules import keep_unchanged
from ml_assets.state import outdated
from ml_assets.use_case import UseCase
from ml_assets.use_cases.claims.delivery import deliver
from ml_assets.use_cases.claims.use_case import CLAIMS

SCORED_DAYS = 14


@dataclass(frozen=True)
class Summary:
    """What the demo has to show in the end."""

    days: int
    rows: int
    quarantined: int
    hyperparameters: str
    roc_auc: float
    log_loss: float
    calibration: str
    threshold: float
    champion: int
    decision: str
    model_card: Path
    monitoring: Path
    expected_claims: float
    scored_day: str


def check_size(environment: Environment, days: int, now: datetime) -> None:
    """Refuse a demo with too few days for a model, or more than there are since the start date.

    Raises:
        ValueError: Naming the number of days that would do.
    """
    settings, tuning = environment.training, environment.tuning
    learned = max(
        settings.validation_days + 1,
        tuning.folds * tuning.fold_days + tuning.judge_days + 1,
    )
    matured = learned + settings.calibration_days + settings.holdout_days
    fewest = CLAIMS.label_maturity_days + matured
    if days < fewest:
        raise ValueError(
            f"--days {days} is too few: outcomes take {CLAIMS.label_maturity_days} days to "
            f"mature, and tuning and training need {matured} matured days. "
            f"Use --days {fewest} or more."
        )
    most = (today(environment, now) - CLAIMS.start_date).days
    if days > most:
        raise ValueError(
            f"--days {days} reaches back before {CLAIMS.start_date}, where the platform's "
            f"partitions start. Use --days {most} or fewer."
        )


def run_demo(
    environment: Environment,
    instance: dg.DagsterInstance,
    *,
    days: int,
    now: datetime,
    console: Console,
) -> Summary:
    """Let `days` days arrive, ending yesterday, and bring every asset up to date.

    Whether so many will do is `check_size`'s to say, before any folder is made.

    Raises:
        RunFailed: A run failed.
    """
    use_case = CLAIMS
    close_dead_runs(instance)  # also when nothing is left to run
    yesterday = today(environment, now) - timedelta(days=1)
    first = yesterday - timedelta(days=days - 1)
    doors = resources(environment)
    warehouse, lake = doors["warehouse"], doors["lake"]
    definitions = build_definitions(environment)
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description:<34}"),
        BarColumn(),
        TextColumn("{task.fields[note]:<44}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        arrive = progress.add_task("Applications arrive", total=1, note=f"{days} days")
        arrived = deliver(warehouse, environment, first, yesterday)
        note = f"{len(arrived)} days new or changed" if arrived else "nothing new"
        progress.update(arrive, completed=1, note=note)

        def keys(*stages: str) -> list[dg.AssetKey]:
            return [dg.AssetKey([use_case.name, stage]) for stage in stages]

        def materialise(
            title: str, job: str, stages: int, wanted: Iterable[str], **kwargs: object
        ) -> None:
            spans = ranges(wanted)
            count = sum(len(days_between(*span)) for span in spans)
            task = progress.add_task(title, total=max(count * stages, 1), note="up to date")

            def on_event(event: dg.DagsterEvent) -> None:
                if event.is_step_materialization:
                    progress.update(task, advance=1)
                elif event.is_step_start:
                    progress.update(task, note=str(event.step_key))

            for first_day, last_day in spans:
                run_days(
                    definitions,
                    instance,
                    f"{use_case.name}_{job}",
                    first_day,
                    last_day,
                    on_event=on_event,
                    because="demo",
                    **kwargs,  # type: ignore[arg-type]
                )
                progress.update(task, note=f"{first_day} to {last_day}")
            progress.update(task, completed=max(count * stages, 1))

        source = source_days(use_case, environment, doors["source"], now).days
        extracted = extracted_fingerprints(use_case, lake, environment, now)
        materialise(
            "Raw data and features",
            "ingestion",
            4,
            {
                *changed_days(source, extracted),
                *outdated(instance, use_case, "features", source),
            },
        )
        last_day = yesterday.isoformat()
        if not _tuned_lately(use_case, lake, last_day):
            materialise("Training set and hyperparameters", "tuning", 2, [last_day])

        def stale(*stages: str, days: Iterable[str] = (last_day,)) -> list[str]:
            found = (outdated(instance, use_case, stage, days) for stage in stages)
            return sorted({day for days in found for day in days})

        if stale("training_set"):
            materialise("Training set", "training", 1, [last_day], assets=keys("training_set"))
        materialise(
            "Model, champion and model card",
            "training",
            3,
            stale("model", "champion", "model_card"),
            assets=keys("model", "champion", "model_card"),
        )
        recent = days_between(max(first, yesterday - timedelta(days=SCORED_DAYS - 1)), yesterday)
        materialise(
            "Predictions",
            "scoring",
            2,
            stale("predictions", "shadow", days=recent),
            assets=keys("predictions", "shadow"),
            run_config=keep_unchanged(use_case),
        )
        materialise("Monitoring", "monitoring", 1, stale("monitoring", days=recent))
    return _summarise(use_case, environment, last_day)


def _tuned_lately(use_case: UseCase, lake: Lake, day: str) -> bool:
    """Whether the week up to a day has seen a tuning, as the weekly schedule would have it."""
    a_week_ago = (date.fromisoformat(day) - timedelta(days=7)).isoformat()
    tuned = lake.rows_per_day(f"{use_case.name}/hyperparameters")
    return any(a_week_ago < known <= day for known in tuned)


def show(summary: Summary, environment: Environment, console: Console, ui_command: str) -> None:
    """Print the summary, and what to do next."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in (
        ("Days", f"{summary.days}"),
        ("Rows", f"{summary.rows:,}"),
        ("Rows in quarantine", f"{summary.quarantined:,}"),
        ("Hyperparameters", summary.hyperparameters),
        ("ROC AUC on the holdout", f"{summary.roc_auc:.4f}"),
        ("Log loss on the holdout", f"{summary.log_loss:.4f}"),
        ("Calibration", f"{summary.calibration}; referred from {summary.threshold:.1%}"),
        ("Champion", f"claims version {summary.champion}"),
        ("The gate", summary.decision),
        (f"Claims expected of {summary.scored_day}", f"{summary.expected_claims:.1f}"),
    ):
        table.add_row(name, value)
    console.print(Panel(table, title="The claims platform is up to date", expand=False))
    for name, place in (
        ("Model card", str(summary.model_card)),
        ("Monitoring", str(summary.monitoring)),
        ("Warehouse", mask_url(environment.warehouse.url)),
        ("Tables", mask_url(environment.lake.url)),
        ("Models", mask_url(environment.registry.url)),
    ):
        # Outside of the box and in one piece, to be copied.
        console.print(f"{name + ':':<12}{place}", soft_wrap=True, highlight=False)
    console.print(f"Open the UI: [bold]{ui_command}[/bold]   (then http://127.0.0.1:3000)")
    console.print(
        "While it runs, let a day arrive: [bold].venv/bin/ml-assets simulate --days 1[/bold]"
    )


def _summarise(use_case: UseCase, environment: Environment, day: str) -> Summary:
    lake = resources(environment)["lake"]
    start = use_case.start_date.isoformat()

    def rows(stage: str) -> pd.DataFrame:
        return lake.read(f"{use_case.name}/{stage}", start, day)

    accounts, tuned, models = (rows(name) for name in ("extraction", "hyperparameters", "model"))
    version = champion(lake, use_case).version
    model, tuning = models[models["version"] == version].iloc[-1], tuned.iloc[-1]
    predictions = standing(lake.read(f"{use_case.name}/predictions", day, day))
    return Summary(
        days=len(accounts),
        rows=int(accounts["rows_kept"].sum()),
        quarantined=int(accounts["rows_quarantined"].sum()),
        hyperparameters=f"{tuning['decision']} as of {tuning['day']}, {tuning['trials']} trials",
        roc_auc=float(model["roc_auc"]),
        log_loss=float(model["log_loss"]),
        calibration=model["calibration"],
        threshold=float(model["threshold"]),
        champion=version,
        decision=rows("champion").iloc[-1]["reason"],
        model_card=card_file(environment, use_case, version),
        monitoring=page_file(environment, use_case, day),
        expected_claims=float(predictions["probability"].sum()),
        scored_day=day,
    )
