"""The jobs of a use case: which assets are materialised together."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import dagster as dg

from ml_assets.use_case import UseCase

# What `dg.define_asset_job` returns; dagster names its type only in a private module.
AssetJob: TypeAlias = Any


@dataclass(frozen=True)
class Jobs:
    """The jobs of one use case.

    Attributes:
        ingestion: From the warehouse to features.
        scoring: From the warehouse to predictions.
        training: From features to a champion.
        tuning: From features to hyperparameters.
        maintenance: Compacts tables, and removes what nobody needs.
        monitoring: Looks at inputs, outputs and outcomes, and writes the day's page.
        freshness: No asset: only the check that yesterday's predictions are there.
    """

    ingestion: AssetJob
    scoring: AssetJob
    training: AssetJob
    tuning: AssetJob
    maintenance: AssetJob
    monitoring: AssetJob
    freshness: AssetJob

    def all(self) -> list[AssetJob]:
        """Every job, for `dg.Definitions`."""
        return [
            self.ingestion,
            self.scoring,
            self.training,
            self.tuning,
            self.maintenance,
            self.monitoring,
            self.freshness,
        ]


def build_jobs(use_case: UseCase) -> Jobs:
    """Define the jobs of a use case; their names are `<use case>_<job>`."""
    ingested = ["raw", "quarantine", "extraction", "features"]

    def job(kind: str, stages: list[str], description: str) -> AssetJob:
        return dg.define_asset_job(
            f"{use_case.name}_{kind}",
            selection=dg.AssetSelection.assets(*[[use_case.name, stage] for stage in stages]),
            description=description,
        )

    return Jobs(
        ingestion=job(
            "ingestion",
            ingested,
            "Read days from the warehouse, judge them, and clean them into features",
        ),
        scoring=job(
            "scoring",
            [*ingested, "predictions", "shadow"],
            "Read days from the warehouse and score them with the champion, and with the "
            "challenger in its shadow",
        ),
        training=job(
            "training",
            ["training_set", "model", "champion", "model_card"],
            "Train a challenger on what has matured, let the gate decide who serves, and write the "
            "model card",
        ),
        tuning=job(
            "tuning",
            ["training_set", "hyperparameters"],
            "Search hyperparameters on what has matured, and decide whether to adopt them",
        ),
        maintenance=job(
            "maintenance",
            ["maintenance"],
            "Compact the tables, and remove the files of versions that nobody needs any more",
        ),
        monitoring=job(
            "monitoring",
            ["monitoring"],
            "Look at what came in, what was said and what came true, and write the day's page",
        ),
        freshness=dg.define_asset_job(
            f"{use_case.name}_freshness",
            selection=dg.AssetSelection.checks(
                dg.AssetCheckKey(dg.AssetKey([use_case.name, "predictions"]), "predictions_on_time")
            ),
            description="Look whether yesterday's predictions are there; makes nothing",
        ),
    )
