"""What the asset builders share: types from contracts, code versions, previews.

Nothing here reads or writes a table.
"""

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pandera.pandas as pa

from ml_assets import core
from ml_assets.use_case import UseCase


@contextmanager
def without_preview_warnings() -> Iterator[None]:
    """Silence Dagster's notices that an API we chose on purpose is in beta or preview."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        yield


def contract_type(schema: pa.DataFrameSchema, name: str) -> dg.DagsterType:
    """The dagster-pandera type of a contract: checked at each output, shown in the UI."""
    from dagster_pandera import pandera_schema_to_dagster_type

    with without_preview_warnings():
        schema.name = name
        return pandera_schema_to_dagster_type(schema)


def spec(
    use_case: UseCase, stage: str, description: str, schema: pa.DataFrameSchema, *, kinds: set[str]
) -> dict[str, Any]:
    """The arguments that every asset has, whichever decorator declares it."""
    type_ = contract_type(schema, f"{use_case.name}_{stage}")
    return {
        "key": dg.AssetKey([use_case.name, stage]),
        "description": description,
        "owners": list(use_case.owners),
        "kinds": kinds,
        "group_name": use_case.name,
        "io_manager_key": "lake_io_manager",
        "dagster_type": type_,
        "metadata": {"dagster/column_schema": type_.metadata["schema"].value},
    }


def table_pool(use_case: UseCase) -> str:
    """The pool that lets one run at a time write a use case's raw data, features and predictions.

    Two runs of one day could otherwise interleave their commits, and leave old rows beside a new
    account. `config/dagster.yaml` sets its limit.
    """
    return f"{use_case.name}_tables"


def code_version(use_case: UseCase, *modules: str, settings: str = "") -> str:
    """A short hash over what makes an asset: core modules, the use case's folder, and settings.

    Args:
        use_case: Its declaration, contract and query count.
        modules: Files below `ml_assets`, such as `core/contract.py`.
        settings: Those settings of the environment that shape the asset, as text.
    """
    package = Path(core.__file__).parents[1]
    files = [package / module for module in modules]
    declared = use_case.query_file.parent
    files += [use_case.query_file, declared / "schema.py", declared / "use_case.py"]
    digest = hashlib.sha256(settings.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def preview(frame: pd.DataFrame, rows: int = 5) -> dg.MarkdownMetadataValue:
    """The first rows as a table for the UI."""
    head = frame.head(rows).astype(object).where(frame.head(rows).notna(), None)
    return dg.MetadataValue.md(head.to_markdown(index=False))


def histogram(values: Iterable[float], bins: int = 10) -> dg.MarkdownMetadataValue:
    """Shares of values from 0 to 1 in equal bins, as bars of text: no plotting library needed."""
    bounds = [i / bins for i in range(bins + 1)]
    counts = pd.cut(pd.Series(list(values), dtype=float), bounds, include_lowest=True)
    shares = counts.value_counts(sort=False, normalize=True).fillna(0)
    lines = [
        f"{low:.1f}–{low + 1 / bins:.1f} {'█' * round(40 * share):<40} {share:6.1%}"
        for low, share in zip(bounds, shares, strict=False)
    ]
    return dg.MetadataValue.md("```\n" + "\n".join(lines) + "\n```")
