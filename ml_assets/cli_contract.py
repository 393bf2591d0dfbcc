"""`ml-assets contract …`: the source as it is now beside the contract.

They are part of `ml-assets`; see `ml_assets.cli`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from ml_assets.cli_common import (
    DayOption,
    EnvOption,
    HomeOption,
    a_day,
    clear_errors,
    console,
    load,
)
from ml_assets.core.texts import visible

if TYPE_CHECKING:  # it takes seconds to import, which --help need not wait for
    from ml_assets.core.evolution import Difference

app = typer.Typer(no_args_is_help=True, help="The contract of the raw rows: diff.")

_VERDICTS = {
    "ok": "[green]ok[/green]",
    "ignored": "new: ignored",
    "optional_missing": "[yellow]missing, but optional[/yellow]",
    "missing": "[red]missing[/red]",
    "renamed": "[red]renamed[/red]",
    "changed_type": "[red]changed its type[/red]",
}


@app.callback()
def contract() -> None:
    """The contract of the raw rows."""


@app.command()
def diff(day: DayOption = None, env: EnvOption = None, home: HomeOption = None) -> None:
    """Compare the source as it is now with the contract, column by column.

    Of the newest day that has rows, or of --day. Nothing is written. Exit code 1 if such a day
    would not be read, or would be held back for its bad rows.
    """
    with clear_errors():
        environment = load(env, home)
        from ml_assets.build import resources
        from ml_assets.changes import now, today
        from ml_assets.core.contract import bad_days, judge
        from ml_assets.core.evolution import compare, remedy
        from ml_assets.sources import sample
        from ml_assets.use_cases.claims.use_case import CLAIMS

        instant = today(environment, now())
        source = resources(environment)["source"]
        asked = a_day(day) if day else None
        found, rows = sample(source, CLAIMS, asked, today=instant)
        schema = CLAIMS.raw.to_schema()
        differences = compare(rows, schema)
        console.print(_table(differences, f"{CLAIMS.name}/raw: {found}, {len(rows):,} rows"))
        if todo := remedy(differences):
            _tell(f"A day like {found} cannot be read. {todo}")
            raise typer.Exit(1)
        judged = judge(
            rows,
            schema,
            days=[found],
            key=CLAIMS.key,
            received_at=CLAIMS.received_at,
            updated_at=CLAIMS.updated_at,
            zone=environment.zone,
        )
        if held_back := bad_days(judged, environment.contract.max_bad_share):
            _tell(
                f"{found} would be read, but features would not follow: {held_back[found]}. Have "
                "the source mended, or change the contract in schema.py."
            )
            raise typer.Exit(1)
        _tell(
            f"{found} can be read: {len(judged.good):,} rows are good, "
            f"{len(judged.quarantine):,} go to quarantine. Nothing to do."
        )


def _table(differences: Sequence["Difference"], title: str) -> Table:
    table = Table("Column", "Expected", "Found", "Broken", "Verdict", title=escape(title))
    table.columns[3].justify = "right"
    for each in differences:
        found = each.found or "–"
        if each.suggestion:
            found = f"likely {each.suggestion!r}"
        table.add_row(
            escape(visible(each.column)),
            escape(each.expected or "–"),
            escape(visible(found)),
            "–" if each.breaking is None else f"{each.breaking:.1%}",
            _VERDICTS[each.verdict],
        )
    return table


def _tell(text: str) -> None:
    console.print(escape(visible(text)), soft_wrap=True, highlight=False)
