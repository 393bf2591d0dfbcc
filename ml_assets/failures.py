"""How our errors become Dagster's: which end a run at once, and which are worth another try.

The errors themselves are defined where they arise, in `ml_assets.core` and `ml_assets.resources`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pandera.errors import SchemaErrors

from ml_assets.champions import NoChampion, Undecided
from ml_assets.core.bundle import CorruptBundle
from ml_assets.core.contract import ContractError
from ml_assets.core.gate import Unfit
from ml_assets.core.splits import OneClass, TooFewDays
from ml_assets.core.tuning import TuningFailed
from ml_assets.resources.lake import LakeError
from ml_assets.resources.landing import LandingError, LandingUnavailable
from ml_assets.resources.registry import RegistryError
from ml_assets.resources.warehouse import WarehouseError, WarehouseUnavailable

# A later try cannot help against these: a person has to mend something first.
_PERMANENT = (
    ContractError,
    CorruptBundle,
    LakeError,
    LandingError,
    NoChampion,
    OneClass,
    RegistryError,
    SchemaErrors,
    TooFewDays,
    TuningFailed,
    Undecided,
    Unfit,
    WarehouseError,
)


@contextmanager
def clear_failures() -> Iterator[None]:
    """Turn errors that a person must mend into failures without retry, and outages into retries."""
    try:
        yield
    except (WarehouseUnavailable, LandingUnavailable) as error:
        # On top of the resource's own quick tries: outages of some seconds are common.
        raise dg.RetryRequested(max_retries=2, seconds_to_wait=5) from error
    except _PERMANENT as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


def check_failure(event: dg.DagsterEvent) -> str | None:
    """What a person should read of a check that holds others back; None if it does not."""
    if event.event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        return None
    evaluation = event.asset_check_evaluation_data
    if evaluation.passed or evaluation.severity != dg.AssetCheckSeverity.ERROR:
        return None
    return evaluation.description or f"the check {evaluation.check_name} failed"


def cause(event: dg.DagsterEvent) -> str:
    """What a person should read of a failed step: our own message, or else the root's."""
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    chain = []
    error = data.error
    while error:
        chain.append(error)
        error = error.cause
    passing = (WarehouseUnavailable.__name__, LandingUnavailable.__name__)
    ours = [link for link in chain if link.cls_name in passing]
    found = (ours or chain)[-1]
    # Python names a class with its module, but for its own.
    return re.sub(rf"^(\S+\.)?{re.escape(str(found.cls_name))}: ", "", found.message.strip())
