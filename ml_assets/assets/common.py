"""What the asset builders share: types from contracts, code versions, previews.

Nothing here reads or writes a table.
"""

import hashlib
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pandas as pd
import pandera.pandas as pa
from pandera import dtypes
from pandera.engines import pandas_engine
from pandera.errors import SchemaErrors

from ml_assets import core
from ml_assets.core.texts import visible
from ml_assets.environment import Environment
from ml_assets.use_case import UseCase

_LONGEST_CELL = 500
# Words, numbers and instants that no reader of Markdown takes for anything else.
_HARMLESS = re.compile(
    r"(?!.*www\.)(?:[^\W_]|[ .,:;%()+='–…−-]|(?<=[^\W_])_(?=[^\W_]))*", re.IGNORECASE
)


@contextmanager
def without_preview_warnings() -> Iterator[None]:
    """Silence Dagster's notices that an API we chose on purpose is in beta or preview."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        yield


@dtypes.immutable
class _Text(pandas_engine.NpString):
    """Pandera's type of texts, which sees in one pass that all of them are."""

    def check(self, pandera_dtype: dtypes.DataType, data_container: Any = None) -> Any:
        all_texts = {"string", "empty"}  # empty: every value is missing
        if data_container is not None and pd.api.types.infer_dtype(data_container) in all_texts:
            return True
        return super().check(pandera_dtype, data_container)


def contract_type(schema: pa.DataFrameSchema, name: str) -> dg.DagsterType:
    """The dagster-pandera type of a contract: checked at each output, shown in the UI.

    It checks a million rows in a third of the time that dagster-pandera's own check takes, which
    copies the frame, and asks of each text by itself whether it is one.
    """
    from dagster_pandera import pandera_schema_to_dagster_type

    schema.name = name
    with without_preview_warnings():
        shown = pandera_schema_to_dagster_type(schema)
    texts = [name for name, column in schema.columns.items() if str(column.dtype) == "str"]
    text = pandas_engine.Engine.dtype(_Text)
    quick = schema.update_columns({column: {"dtype": text} for column in texts})

    def check(_: dg.TypeCheckContext, value: object) -> dg.TypeCheck:
        if not isinstance(value, pd.DataFrame):
            told = f"must be a DataFrame, not {type(value).__name__}"
            return dg.TypeCheck(success=False, description=told)
        try:
            quick.validate(value, lazy=True, inplace=True)  # it coerces nothing
        except SchemaErrors as error:
            return dg.TypeCheck(success=False, description=str(error))
        return dg.TypeCheck(success=True)

    return dg.DagsterType(check, name=name, description=shown.description, metadata=shown.metadata)


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


def page_link(environment: Environment, file: Path) -> dg.MetadataValue[str]:
    """A page in the environment's `reports` folder, as the UI links to it.

    A page of http cannot link to a file, so where nothing serves the folder, its path is shown.
    """
    if not environment.reports.url:
        return dg.MetadataValue.path(str(file))
    place = file.relative_to(environment.reports_folder).as_posix()
    return dg.MetadataValue.url(f"{environment.reports.url.rstrip('/')}/{quote(place)}")


def preview(frame: pd.DataFrame, rows: int = 5) -> dg.MarkdownMetadataValue:
    """The first rows as a table for the UI, with values and names shown as they are.

    The UI renders Markdown, and a source may say anything: no value becomes a link, a tag or a
    cell of its own.
    """
    head = frame.head(rows)
    rules = ["---:" if pd.api.types.is_numeric_dtype(kind) else "---" for kind in head.dtypes]
    values = head.astype(object).itertuples(index=False, name=None)
    lines = [map(_cell, head.columns), rules, *(map(_cell, row) for row in values)]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(line)} |" for line in lines))


def previews(
    frame: pd.DataFrame, days: Sequence[str], rows: int = 5
) -> dict[str, dg.MarkdownMetadataValue]:
    """The first rows of each day, for runs that make many: who looks at a day sees that day."""
    heads = frame.groupby("day").head(rows)
    return {day: preview(heads[heads["day"] == day], rows) for day in days}


def _cell(value: Any) -> str:
    """A value as it stands in a cell of a Markdown table."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if len(text) > _LONGEST_CELL:
        text = f"{text[:_LONGEST_CELL]}…"
    text = visible(text)
    if _HARMLESS.fullmatch(text):
        return text
    # As code nothing else is markup; its fence is longer than any in the text.
    fence = "`" * (1 + max((len(found) for found in re.findall("`+", text)), default=0))
    # A table takes a pipe for a new cell even there, unless an odd number of backslashes leads it.
    within = re.sub(r"(\\*)\|", r"\1\1\|", text)
    return f"{fence} {within} {fence}"


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
