"""Pages that MkDocs makes from code and configuration at each build, so that they cannot go stale.

`on_config` puts pages that the navigation does not name where people look for them, `on_files` adds
the reference and a page for each source file that a page links to, and `on_page_markdown` leads
links to the latter. No list here is kept by hand: a new command, key,
asset, check or table appears by itself. Pages that people write are the `.md` files beside this.
"""

import inspect
import os
import re
from collections.abc import Callable, Iterator
from enum import EnumType
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args, get_origin

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)((?:#[^)\s]*)?\))")
_FENCED = re.compile(r"^( *)(```+|~~~+).*?^\1\2", re.MULTILINE | re.DOTALL)
_LANGUAGES = {".py": "python", ".sql": "sql", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add each page at the top of docs/ that the navigation does not name to its day two."""
    named = set(re.findall(r"[\w/-]+\.md", str(config.nav)))
    folder = Path(config.docs_dir)
    day_two = next(part["Day two"] for part in config.nav or [] if "Day two" in part)
    day_two += [page.name for page in sorted(folder.glob("*.md")) if page.name not in named]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here; MkDocs calls it once it has found the others."""
    made = {name: make() for name, make in PAGES.items()}
    written = [Path(file.abs_src_path).read_text("utf-8") for file in files.documentation_pages()]
    for target in sorted({path for text in written for path in _linked_sources(text)}):
        if (name := _source_page(target)) not in made:
            made[name] = _source(target)
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead links that go to a file of the repository to the page that shows it."""
    depth = len(PurePosixPath(page.file.src_uri).parts) - 1

    def led(match: re.Match[str]) -> str:
        target = _in_repository(match[2], PurePosixPath(page.file.src_uri).parent)
        if target is None:
            return match[0]
        return f"{match[1]}{'../' * depth}{_source_page(target)})"

    return _LINK.sub(led, markdown)


def _in_repository(link: str, folder: PurePosixPath) -> str | None:
    """The path from the repository's top, if a link of a page in `folder` leaves docs/."""
    path = os.path.normpath(PurePosixPath("docs") / folder / link)
    if path.startswith(("docs/", "..")) or not (REPOSITORY / path).exists():
        return None
    return path


def _linked_sources(text: str) -> Iterator[str]:
    # Pages lie one folder deep at most, so that both readings of `..` are tried.
    for match in _LINK.finditer(_FENCED.sub("", text)):
        for folder in (PurePosixPath(), PurePosixPath("folder")):
            if target := _in_repository(match[2], folder):
                yield target


def _source_page(path: str) -> str:
    if path == "CHANGELOG.md":
        return "changelog.md"  # a page of its own, with links that fit
    return f"source/{path.removesuffix('.md')}.md"


def _source(path: str) -> str:
    """A page that shows a file as it is, or the modules of a folder and what belongs in each."""
    file = REPOSITORY / path
    if file.is_dir():
        modules = sorted(each for each in file.rglob("*.py") if each.name != "__init__.py")
        rows = [(f"`{each.relative_to(file)}`", _first_line(each)) for each in modules]
        return f"# {path}/\n\n{_table(('File', 'What belongs there'), rows)}"
    text = file.read_text("utf-8")
    if file.suffix == ".md":
        return text
    return f"# {path}\n\n````{_LANGUAGES.get(file.suffix, 'text')}\n{text}````\n"


def _first_line(module: Path) -> str:
    found = re.match(r'"""(.*?)(?:"""|\n\n)', module.read_text("utf-8"), re.DOTALL)
    return _line(found[1]) if found else ""


def _cli() -> str:
    """The command line, from the commands themselves."""
    from typer.main import get_command

    from ml_assets.cli import app

    root = get_command(app)
    parts = [
        "# Command line",
        "Made from the commands when this site was built. `--help` says the same. The command lies "
        "in `.venv/bin/`; an error that you can mend ends in one message and exit code 1.",
        inspect.cleandoc(root.help or ""),
    ]
    for name, command in _commands(root, "ml-assets"):
        parts += [f"## {name}", inspect.cleandoc(command.help or "")]
        rows = [
            (
                ", ".join(f"`{each}`" for each in option.opts)
                if option.param_type_name == "option"
                else f"`{option.name.upper()}`",
                _kind(option.type_descriptor.annotation),
                "required" if option.required else _default(option.default),
                _line(getattr(option, "help", None) or ""),
            )
            for option in command.params
            if option.name != "help"
        ]
        parts.append(_table(("Option", "Type", "Default", "What it does"), rows))
    targets = re.findall(r"^([a-z-]+):.*?## (.*)$", _text("Makefile"), re.MULTILINE)
    parts += [
        "## make",
        "The targets of the Makefile; each but `clean` sets `.venv` up first.",
        _table(("Target", "What it does"), [(f"`make {name}`", does) for name, does in targets]),
    ]
    return "\n\n".join(parts)


def _commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    for part, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {part}")
        else:
            yield f"{name} {part}", command


def _kind(annotation: Any) -> str:
    words = {str: "text", int: "whole number", float: "number", bool: "switch", Path: "path"}
    if annotation in words:
        return words[annotation]
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(annotation))
    if isinstance(annotation, EnumType):
        return ", ".join(f"`{each.value}`" for each in annotation)
    # A list or a tuple, by what is in it; an optional value, by the value.
    inner = [each for each in get_args(annotation) if each not in (type(None), ...)]
    several = get_origin(annotation) in (list, tuple)
    kind = ", ".join(dict.fromkeys(_kind(each) for each in inner)) or str(annotation)
    return f"{kind}, several" if several else kind


def _default(value: Any) -> str:
    return "–" if value is None else f"`{value}`"


def _configuration() -> str:
    """Every key, from the settings' types, base.yaml with its comments, and what others change."""
    from ml_assets.environment import ENVIRONMENTS, VARIABLES, Environment

    folder = REPOSITORY / "ml_assets" / "config"
    base = yaml.safe_load((folder / "base.yaml").read_text("utf-8"))
    comments = _comments((folder / "base.yaml").read_text("utf-8"))
    others = {
        name: yaml.safe_load((folder / f"{name}.yaml").read_text("utf-8")) or {}
        for name in ENVIRONMENTS
    }
    variables = {keys: name for name, keys in VARIABLES.items()}
    parts = [
        "# Configuration",
        "Made from the code and `ml_assets/config/` when this site was built. `base.yaml` holds "
        "every default, `<environment>.yaml` is laid over it, environment variables over both. "
        "`ml-assets config --env NAME` prints the outcome, secrets masked; an unknown key or a "
        "wrong value is refused, with its file and key.",
        "## Environment variables",
        _table(
            ("Variable", "Key that it sets"),
            [("`ML_ASSETS_ENV`", "the environment: " + ", ".join(f"`{e}`" for e in ENVIRONMENTS))]
            + [(f"`{name}`", f"`{'.'.join(keys)}`") for name, keys in VARIABLES.items()],
        ),
    ]
    top = {name: field for name, field in Environment.model_fields.items() if name != "name"}
    plain = {name: field for name, field in top.items() if not _is_section(field.annotation)}
    sections = {name: field for name, field in top.items() if name not in plain}
    groups = [("Top level", "", plain, ())]
    for name, field in sections.items():
        about = inspect.cleandoc(field.annotation.__doc__ or "")
        groups.append((name, about, field.annotation.model_fields, (name,)))
    for title, about, fields, above in groups:
        rows = list(_keys(fields, above, base, others, comments, variables))
        parts += [f"## {title}", about] if about else [f"## {title}"]
        heads = ("Key", "Default, and where it differs", "Allowed", "What it does")
        parts.append(_table(heads, rows))
    return "\n\n".join(parts)


def _is_section(annotation: Any) -> bool:
    return hasattr(annotation, "model_fields")


def _keys(
    fields: Any,
    above: tuple[str, ...],
    base: Any,
    others: Any,
    comments: dict[tuple[str, ...], str],
    variables: Any,
) -> Iterator[tuple[str, ...]]:
    for name, field in fields.items():
        keys = (*above, name)
        if _is_section(field.annotation):
            yield from _keys(field.annotation.model_fields, keys, base, others, comments, variables)
            continue
        elsewhere = [
            f"{env}: {_value(_at(values, keys))}"
            for env, values in others.items()
            if _at(values, keys) is not None
        ]
        variable = f"<br>`{variables[keys]}`" if keys in variables else ""
        yield (
            f"`{'.'.join(keys)}`{variable}",
            "<br>".join([_value(_at(base, keys)), *elsewhere]),
            _allowed(field),
            _line(" ".join(filter(None, (field.description, comments.get(keys))))),
        )


def _at(values: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        if not isinstance(values, dict) or key not in values:
            return None
        values = values[key]
    return values


def _value(value: Any) -> str:
    if isinstance(value, dict) and value:
        return "<br>".join(f"`{key}: {item}`" for key, item in value.items())
    text = {True: "true", False: "false", "": '""', None: "–"}.get(
        value if not isinstance(value, dict | list) else str(value), str(value)
    )
    return text if text == "–" else f"`{text}`"


def _allowed(field: Any) -> str:
    """The type in words, with the bounds that pydantic checks."""
    annotation = field.annotation
    if choices := [each for each in get_args(annotation) if isinstance(each, str)]:
        return ", ".join(f"`{each}`" for each in choices)
    plain = get_origin(annotation) or annotation
    words = {"str": "text", "bool": "true, false", "int": "whole number", "float": "number"}
    words |= {"Path": "folder", "dict": "map", "list": "list", "tuple": "list"}
    name = getattr(plain, "__name__", str(plain))
    bounds = []
    for rule in field.metadata:
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if (limit := getattr(rule, attribute, None)) is not None:
                bounds.append(f"{sign} {limit:,}")
    return ", ".join([words.get(name, name), *bounds])


def _comments(text: str) -> dict[tuple[str, ...], str]:
    """The comment of each key of a YAML file: above it, beside it, and going on below it."""
    found: dict[tuple[str, ...], str] = {}
    path: list[tuple[int, str]] = []
    above: list[str] = []
    last: tuple[str, ...] | None = None
    for line in text.splitlines():
        comment = re.search(r"(?:^|\s)#\s?(.*)$", line)
        key = re.match(r"( *)([\w-]+):", line)
        if key:
            path = [*((indent, name) for indent, name in path if indent < len(key[1]))]
            path.append((len(key[1]), key[2]))
            last = tuple(name for _, name in path)
            beside = [comment[1].strip()] if comment else []
            found[last] = " ".join([*above, *beside])
            above = []
        elif not comment:
            above, last = [], None
        elif last and line.startswith("     "):  # goes on below the key, far to the right
            found[last] = f"{found[last]} {comment[1].strip()}"
        else:
            above.append(comment[1].strip())
    return found


def _platform() -> str:
    """Assets, jobs, schedules, sensors and checks, from the Definitions that Dagster runs."""
    definitions = _definitions()
    parts = [
        "# Assets, jobs and checks",
        "Made from the code when this site was built, as the `dev` environment has it. Other "
        "environments differ by their [configuration](configuration.md) only; columns are in "
        "[Tables](tables.md).",
        "## Assets",
    ]
    specs = _journey(definitions)
    rows = [
        (
            f"`{spec.key.to_user_string()}`",
            _line(spec.description or ""),
            ", ".join(sorted(f"`{dep.asset_key.to_user_string()}`" for dep in spec.deps)) or "–",
        )
        for spec in specs
    ]
    parts.append(_table(("Asset", "What it holds", "Made from"), rows))
    parts.append("## Jobs")
    rows = [
        (
            f"`{job.name}`",
            _line(job.description or ""),
            ", ".join(f"`{key}`" for key in re.findall(r'key:"[^"]*/([^"]+)"', str(job.selection))),
        )
        for job in sorted(definitions.jobs, key=lambda each: each.name)
    ]
    parts.append(_table(("Job", "What it does", "Assets"), rows))
    parts.append("## Schedules")
    rows = [
        (
            f"`{each.name}`",
            _when(each.cron_schedule),
            _line(each.description or ""),
            f"`{each.job_name}`",
        )
        for each in sorted(definitions.schedules, key=lambda each: each.name)
    ]
    parts.append(_table(("Schedule", "When", "What it does", "Job"), rows))
    parts.append("## Sensors")
    rows = [
        (
            f"`{each.name}`",
            f"every {each.minimum_interval_seconds} s" if each.minimum_interval_seconds else "–",
            _line(each.description or ""),
        )
        for each in sorted(definitions.sensors, key=lambda each: each.name)
    ]
    parts.append(_table(("Sensor", "When", "What it does"), rows))
    parts += [
        "## Checks",
        "A *blocking* check that fails holds back what is made from its asset. What to do: "
        "[When something is red](../symptoms.md#a-check-is-red-or-yellow).",
    ]
    parts.append(_table(("Check", "Of", "Blocking", "What it says"), list(checks(definitions))))
    return "\n\n".join(parts)


def checks(definitions: Any) -> Iterator[tuple[str, str, str, str]]:
    """Each asset check: name, asset, whether it blocks, and what it says."""
    found = [spec for check in definitions.asset_checks for spec in check.check_specs]
    for spec in definitions.assets:
        found += list(getattr(spec, "check_specs", ()))
    for spec in sorted(found, key=lambda each: (each.asset_key, each.name)):
        yield (
            f"`{spec.name}`",
            f"`{spec.asset_key.to_user_string()}`",
            "yes" if spec.blocking else "no",
            _line(spec.description or ""),
        )


def _journey(definitions: Any) -> list[Any]:
    """The assets in the order in which a row travels; by name where that leaves a choice."""
    specs = {spec.key: spec for spec in definitions.resolve_all_asset_specs()}
    sorter = TopologicalSorter(
        {key: [dep.asset_key for dep in specs[key].deps] for key in sorted(specs)}
    )
    sorter.prepare()
    ordered = []
    while ready := sorted(sorter.get_ready()):
        ordered += [specs[key] for key in ready if key in specs]
        sorter.done(*ready)
    return ordered


def _definitions() -> Any:
    from ml_assets.build import build_definitions
    from ml_assets.environment import load_environment

    return build_definitions(load_environment("dev", environ={}))


def _when(cron: Any) -> str:
    """A cron line of ours in words: minute and hour are numbers, the weekday a name or all."""
    minute, hour, _, _, weekday = str(cron).split()
    days = {"*": "daily", "sun": "Sundays", "mon": "Mondays"}.get(weekday, weekday)
    return f"{days}, {int(hour):02}:{int(minute):02}"


def _tables() -> str:
    """The columns of each table, from the contracts in the assets' metadata."""
    from ml_assets.core import tables
    from ml_assets.use_cases.claims.use_case import CLAIMS

    parts = [
        "# Tables",
        "Made from the contracts when this site was built. Read one in Python by "
        '`ml_assets.load("claims/features")`; its versions: `ml-assets data log claims/features`.',
    ]
    specs = _journey(_definitions())
    shown = set()
    for spec in specs:
        schema = spec.metadata.get("dagster/column_schema")
        if schema is None:
            continue
        name = spec.key.to_user_string()
        shown.add(spec.key.path[-1])
        parts += [f"## {name}", _line(spec.description or "")]
        rows = [
            (
                f"`{column.name}`",
                f"`{column.type}`",
                "" if column.constraints.nullable else "yes",
                _line(column.description or ""),
            )
            for column in getattr(schema, "schema", schema).columns
        ]
        parts.append(_table(("Column", "Type", "Always there", "What it means"), rows))
    # Ledgers that no asset makes: who served, and which files came.
    for stage, model in (("champion_history", "ChampionHistory"), ("landing", "Landing")):
        if stage in shown:
            continue
        contract = getattr(tables, model)
        parts += [f"## {CLAIMS.name}/{stage}", _line(contract.__doc__ or "")]
        rows = [
            (
                f"`{column.name}`",
                f"`{column.dtype}`",
                "" if column.nullable else "yes",
                _line(column.description or ""),
            )
            for column in contract.to_schema().columns.values()
        ]
        parts.append(_table(("Column", "Type", "Always there", "What it means"), rows))
    return "\n\n".join(parts)


def _python() -> str:
    """What a notebook or another use case imports; mkdocstrings fills it from the docstrings."""
    core = REPOSITORY / "ml_assets" / "core"
    parts = [
        "# Python",
        "Made from the docstrings when this site was built.",
        "## In a notebook",
        "::: ml_assets.data.load",
        "## What a use case declares",
        "::: ml_assets.use_case.UseCase",
        "## The machine learning",
        "`ml_assets.core`: functions on frames, arrays and models that know nothing of Dagster, "
        "tables or the clock. The same data, settings and seed give the same bytes.",
    ]
    for module in sorted(core.glob("*.py")):
        if module.stem != "__init__":
            parts.append(f"::: ml_assets.core.{module.stem}")
    return "\n\n".join(parts)


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def _line(text: str) -> str:
    """Text fit for a cell: one line, and no tags but in code."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)


def _text(path: str) -> str:
    return (REPOSITORY / path).read_text("utf-8")


def _changelog() -> str:
    """The changelog; its links lead from the repository's top."""
    return _text("CHANGELOG.md").replace("](docs/", "](")


PAGES: dict[str, Callable[[], str]] = {
    "changelog.md": _changelog,
    "reference/cli.md": _cli,
    "reference/configuration.md": _configuration,
    "reference/platform.md": _platform,
    "reference/tables.md": _tables,
    "reference/python.md": _python,
}
