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


def code_version(use_case: UseCase, *modules: str) -> str:
    """A short hash over the code that makes an asset: core modules, contract and query.

    Args:
        use_case: Its contract and query count.
        modules: File names in `ml_assets/core`, such as `contract.py`.
    """
    core_folder = Path(core.__file__).parent
    files = [core_folder / module for module in modules]
    files += [use_case.query_file, use_case.query_file.with_name("schema.py")]
    digest = hashlib.sha256()
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
