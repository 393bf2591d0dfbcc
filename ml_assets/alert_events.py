"""What happened since the last look: from Dagster's records, the champions' history, the ledger.

A run is looked at once, when it has ended: its failure, its checks and what it made come in one
reading by its id, which is cheap on every storage. Which of it is told is decided in
`ml_assets.alerts`.

Ticks are looked at too: a sensor that cannot read its source asks for no run that could fail.

Checks have to be evaluated by runs; evaluations that a sensor reports by itself are not
seen.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster_shared.error import SerializableErrorInfo
from pydantic import BaseModel

from ml_assets.alerts import Event, Level, cause_and_remedy
from ml_assets.champions import GATE, history
from ml_assets.checks import FAILING_DAYS, JUDGED_DAYS
from ml_assets.core.texts import visible
from ml_assets.failures import cause
from ml_assets.masking import without_secrets, without_values
from ml_assets.partitions import days_between
from ml_assets.resources.lake import Lake, LakeError
from ml_assets.resources.landing import LandingError, LandingUnavailable
from ml_assets.resources.ledger import File, read_files
from ml_assets.resources.places import safe_name
from ml_assets.resources.registry import RegistryError
from ml_assets.resources.warehouse import WarehouseError, WarehouseUnavailable
from ml_assets.sources import REJECTIONS_DAYS, ledger
from ml_assets.use_case import UseCase

_PAGE = 200  # of Dagster's records
_MOST = 400  # ended runs of one kind that are read at once; the rest at the next look
# A record's number is taken before it can be read: for so long, one with a lower number may come.
_SETTLED_AFTER = timedelta(seconds=120)

_FAILED_TICKS = 3  # in a row, of a sensor: one may fail by chance

# Of errors with these names, the message was worded by the platform.
_OURS = frozenset(
    error.__name__
    for error in (
        WarehouseError,
        WarehouseUnavailable,
        LandingError,
        LandingUnavailable,
        LakeError,
        RegistryError,
    )
)

_ENDED = (
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.RUN_SUCCESS,
    dg.DagsterEventType.RUN_CANCELED,
)
_READ = {
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
}
_BLOCKED_BY_CHECK = "DagsterAssetCheckFailedError"
_WILL_RETRY = "dagster/will_retry"

_RUN_REMEDY = (
    "Open the run and read its first error; once that is mended, materialise the same days again."
)
_TICK_REMEDY = "Mend the cause; the next tick tries again by itself, and nothing is lost meanwhile."
_CHECK_REMEDY = "Open the run and look at the check's metadata."


class Position(BaseModel):
    """How far the ends of runs have been read: up to `after`, and those of `seen` beyond it."""

    after: int | None = None
    seen: tuple[int, ...] = ()


class Landed(BaseModel):
    """How far a landing folder's ledger has been read: the table's version, and the last line."""

    version: int
    number: int


class Cursor(BaseModel):
    """How far everything has been read.

    Attributes:
        since: When the reading began; what happened earlier is not told.
        runs: By the kind of end.
        champions: For each use case, the newest row of the history that has been read.
        versions: For each use case, the version of the table in which that was.
        landed: For each use case whose rows come in files, how far the ledger has been read.
    """

    since: datetime
    runs: dict[str, Position] = {}
    champions: dict[str, datetime] = {}
    versions: dict[str, int] = {}
    landed: dict[str, Landed] = {}


def read_events(
    instance: dg.DagsterInstance,
    lake: Lake,
    use_cases: Sequence[UseCase],
    tickers: Collection[str],
    cursor: Cursor,
    now: datetime,
) -> tuple[list[Event], Cursor]:
    """Everything worth a look that was recorded since the cursor, in its order.

    Args:
        instance: Dagster's own records.
        lake: Where the champions' history is, and the ledger of files that landed.
        use_cases: Whose champions and files are looked at.
        tickers: Names of the sensors and schedules there are now.
        cursor: How far everything has been read.
        now: The time of this look.
    """
    events: list[Event] = []
    runs = {}
    for kind in _ENDED:
        records, runs[kind.value] = _new_ends(
            instance, kind, cursor.runs.get(kind.value, Position()), cursor.since, now
        )
        for record in records:
            events += of_run(instance, record)
    events += of_ticks(instance, tickers)
    champions, versions = dict(cursor.champions), dict(cursor.versions)
    landed = dict(cursor.landed)
    for use_case in use_cases:
        name = use_case.name
        since = cursor.champions.get(name, cursor.since)
        table = f"{name}/champion_history"
        try:
            version = lake.version(table)
            changed = version is not None and version != cursor.versions.get(name)
            found = of_champions(lake, use_case, since) if changed else []
        except Exception as error:  # the lake is out of reach: the more, all else must get out
            events.append(_of_lake(table, error, now))
            continue
        events += [_of_lake(table, None, now), *found]
        champions[name] = max([since, *(each.at for each in found)])
        versions |= {name: version} if version is not None else {}
        table = ledger(use_case)
        try:
            found, upto = of_landing(lake, use_case, cursor, now)
        except Exception as error:  # its files are lost, say
            events.append(_of_lake(table, error, now))
            continue
        events += [_of_lake(table, None, now), *found]
        landed |= {name: upto} if upto else {}
    events.sort(key=lambda each: each.at)
    return events, Cursor(
        since=cursor.since, runs=runs, champions=champions, versions=versions, landed=landed
    )


def of_run(instance: dg.DagsterInstance, end: dg.EventLogRecord) -> list[Event]:
    """What the end of a run tells: its checks, what it made, and how it failed."""
    run = instance.get_run_by_id(end.run_id)
    if run is None:  # deleted since
        return []
    entries = [
        entry.dagster_event
        for entry in instance.all_logs(run.run_id, of_type=_READ)
        if entry.dagster_event
    ]
    at = datetime.fromtimestamp(end.timestamp, UTC)
    days = _days(run.tags)
    checks = [
        event.asset_check_evaluation_data
        for event in entries
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ]
    events = [event for check in checks for event in _of_check(check, days, run.run_id, at)]
    made = {
        event.asset_key.to_user_string()
        for event in entries
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key
    }
    succeeded = end.event_type == dg.DagsterEventType.RUN_SUCCESS
    mended = [f"run:{asset}" for asset in sorted(made)]
    for subject in [*mended, f"run:{run.job_name}"] if succeeded else mended:
        what = subject.removeprefix("run:")
        events.append(
            Event("well", subject, days, "info", what, "", "", _first(what), run.run_id, at)
        )
    if end.event_type == dg.DagsterEventType.RUN_FAILURE:
        events += _of_failure(run, end, entries, days, at)
    return events


def of_ticks(instance: dg.DagsterInstance, names: Collection[str]) -> list[Event]:
    """Which sensors and schedules fail now, and which do not.

    Their state, whenever it is asked for: that a trouble is told once is for `plan` to see to.
    Dagster keeps the last ticks of those that were removed since; these are nobody's concern.
    """
    if instance.schedule_storage is None:  # an ephemeral instance
        return []
    events: list[Event] = []
    for state in instance.all_instigator_state():
        if state.status.value == "STOPPED" or state.instigator_name not in names:
            continue
        name, is_sensor = state.instigator_name, state.instigator_type.value == "SENSOR"
        ticks = [
            tick
            for tick in instance.get_ticks(
                state.instigator_origin_id, state.selector_id, limit=_FAILED_TICKS + 1
            )
            if tick.status.value != "STARTED"
        ][: _FAILED_TICKS if is_sensor else 1]
        if not ticks:
            continue
        failed = [tick for tick in ticks if tick.status.value == "FAILURE"]
        newest = ticks[0]
        if newest in failed and len(failed) < (_FAILED_TICKS if is_sensor else 1):
            continue  # it may pass
        said, is_ours = _said_by(newest.error) if newest.error else ("It does not say why.", True)
        why, remedy = cause_and_remedy(_fit(said, ours=is_ours), _TICK_REMEDY)
        kind = "sensor" if is_sensor else "schedule"
        events.append(
            Event(
                kind="trouble" if newest in failed else "well",
                subject=f"tick:{name}",
                days=(),
                level="error",
                title=f"{kind} {name}" + (" fails" if newest in failed else ""),
                cause=why if newest in failed else "",
                remedy=remedy if newest in failed else "",
                use_case=_first(name),
                run_id="",
                at=datetime.fromtimestamp(newest.timestamp, UTC),
            )
        )
    # One that moved to another code location left an older state of the same name behind.
    return list({each.subject: each for each in sorted(events, key=lambda one: one.at)}.values())


def of_champions(lake: Lake, use_case: UseCase, since: datetime) -> list[Event]:
    """Who took the service over after an instant, by the gate or by hand."""
    reigns = history(lake, use_case)
    events = []
    for place, reign in enumerate(reigns):
        if reign.at <= since or reign.event == "kept":
            continue
        by = "the gate" if reign.by == GATE else reign.by
        is_back = reign.event == "rolled_back"
        before = f" in place of version {reigns[place - 1].version}" if place else ""
        deed = "rolled back" if is_back else "promoted"
        events.append(
            Event(
                kind="news",
                subject=f"champion:{use_case.name}",
                days=(reign.at.isoformat(),),
                level="warning" if is_back else "info",
                title=f"{use_case.name}: version {reign.version} serves{before}, {deed} by {by}",
                cause=_fit(reign.reason),
                remedy=(
                    "Find out what was wrong with the version that was withdrawn; the gate does "
                    "not promote it again."
                    if is_back
                    else "Nothing, if that is as expected; `ml-assets rollback --because TEXT` "
                    "gives the service back."
                ),
                use_case=use_case.name,
                run_id="",
                at=reign.at,
            )
        )
    return events


def of_landing(
    lake: Lake, use_case: UseCase, cursor: Cursor, now: datetime
) -> tuple[list[Event], Landed | None]:
    """Which files were rejected since the cursor, which were taken, and how far that is.

    The first look goes no further back than a rejected file is news.
    """
    table, known = ledger(use_case), cursor.landed.get(use_case.name)
    version = lake.version(table)
    if version is None or (known and known.version == version):
        return [], known
    files = read_files(lake, table)
    if known and known.version < version:
        new = [file for file in files if file.number > known.number]
    else:  # the first look, or one at a table from a backup
        since = max(cursor.since, now - timedelta(days=REJECTIONS_DAYS))
        new = [file for file in files if file.taken_at >= since]
    last = max((file.number for file in files), default=0)
    return [_of_file(use_case, file) for file in new], Landed(version=version, number=last)


def _of_file(use_case: UseCase, file: File) -> Event:
    """What became of a file: rejected; or taken, which ends the trouble with its name."""
    rejected = file.outcome == "rejected"
    # A file without a header has values in place of its columns' names: no quotation stays.
    why, _ = cause_and_remedy(_fit(file.reason, ours=False), "")
    return Event(
        kind="trouble" if rejected else "well",
        subject=f"landing:{use_case.name}/{file.path}",
        days=(),
        level="warning",
        title=f"{use_case.name}: the file {file.path}" + (" was rejected" if rejected else ""),
        cause=why if rejected else "",
        remedy=f"Look at {safe_name(file.path)}.reason.txt in rejected/ of the landing folder, "
        "have the file mended, and drop it again under the same name."
        if rejected
        else "",
        use_case=use_case.name,
        run_id="",
        at=file.taken_at,
    )


def _of_lake(table: str, error: Exception | None, at: datetime) -> Event:
    """Whether a table that tells of news can be read."""
    ours = type(error).__name__ in _OURS
    why, remedy = cause_and_remedy(
        _fit(str(error), ours=ours) if error else "", "See that the lake can be reached."
    )
    return Event(
        kind="trouble" if error else "well",
        subject=f"lake:{table}",
        days=(),
        level="error",
        title=table + (" cannot be read" if error else ""),
        cause=why if error else "",
        remedy=remedy if error else "",
        use_case=_first(table),
        run_id="",
        at=at,
    )


def _new_ends(
    instance: dg.DagsterInstance,
    kind: dg.DagsterEventType,
    position: Position,
    since: datetime,
    now: datetime,
) -> tuple[list[dg.EventLogRecord], Position]:
    """The ends of runs that have not been read yet, and how far that is."""
    read: list[dg.EventLogRecord] = []
    after = position.after
    while len(read) < _MOST:
        page = instance.fetch_run_status_changes(
            dg.RunStatusChangeRecordsFilter(
                event_type=kind,  # type: ignore[arg-type]
                after_storage_id=after,
                after_timestamp=since.timestamp(),
            ),
            limit=_PAGE,
            ascending=True,
        ).records
        read += page
        if len(page) < _PAGE:
            break
        after = page[-1].storage_id
    settled = [
        record.storage_id
        for record in read
        if now.timestamp() - record.timestamp > _SETTLED_AFTER.total_seconds()
    ]
    upto = max(settled, default=position.after)
    new = [record for record in read if record.storage_id not in position.seen]
    seen = tuple(each.storage_id for each in read if upto is None or each.storage_id > upto)
    return new, Position(after=upto, seen=seen)


def _of_check(
    check: dg.AssetCheckEvaluation, days: tuple[str, ...], run_id: str, at: datetime
) -> list[Event]:
    """What one result says of the days it is about: which of them are well, and which are not."""
    asset = check.asset_key.to_user_string()
    level: Level = "error" if check.severity == dg.AssetCheckSeverity.ERROR else "warning"
    said = check.description or f"The check {check.check_name} of {asset} does not hold."
    why, remedy = cause_and_remedy(_fit(said), _CHECK_REMEDY)
    partition = getattr(check, "partition", None)
    named = _named(check, JUDGED_DAYS)
    judged = named if named is not None else (partition,) if partition else days
    # A check that does not say which of its days fail fails for all of them.
    failing = () if check.passed else (_named(check, FAILING_DAYS) or judged)
    well = tuple(day for day in judged if day not in failing)
    passed = Event(
        kind="well",
        subject=f"check:{asset}/{check.check_name}",
        days=well,
        level=level,
        title=f"{asset}: {check.check_name}",
        cause="",
        remedy="",
        use_case=_first(asset),
        run_id=run_id,
        at=at,
        and_before=named is not None,
        still=failing,
    )
    failed = replace(
        passed,
        kind="trouble",
        days=failing,
        title=f"{passed.title} fails",
        cause=why,
        remedy=remedy,
    )
    # Of a check without days there is but the one result.
    is_well = bool(well) or (check.passed and named is None)
    return [*([passed] if is_well else []), *([] if check.passed else [failed])]


def _named(check: dg.AssetCheckEvaluation, key: str) -> tuple[str, ...] | None:
    """The days in a check's metadata; None if it does not tell."""
    found = check.metadata.get(key)
    return tuple(map(str, found.value)) if found and isinstance(found.value, list) else None


def _of_failure(
    run: dg.DagsterRun,
    end: dg.EventLogRecord,
    entries: Sequence[dg.DagsterEvent],
    days: tuple[str, ...],
    at: datetime,
) -> list[Event]:
    """Why a run failed; nothing if a check held it back, which is told as that."""
    failures = [event for event in entries if event.is_step_failure]
    others = [each for each in failures if not _is_held_back(each)]
    if failures and not others:
        return []
    job = "A run by hand" if run.job_name.startswith("__") else run.job_name
    if others:
        first = others[0]
        said, is_ours = cause(first), _is_ours(first)
        subject = _asset_of(first, entries) or run.job_name
        title = f"{job} failed at {first.step_key}"
    else:
        event = end.event_log_entry.dagster_event
        said, is_ours = str(event.message if event else ""), True
        subject, title = run.job_name, f"{job} failed"
    why, remedy = cause_and_remedy(_fit(said, ours=is_ours), _RUN_REMEDY)
    retried = run.tags.get(_WILL_RETRY) == "true"
    return [
        Event(
            kind="trouble",
            subject=f"run:{subject}",
            days=days,
            level="warning" if retried else "error",
            title=title,
            cause=why or "The run ended without saying why.",
            remedy="Nothing yet: Dagster runs it again by itself." if retried else remedy,
            use_case=_first(subject),
            run_id=run.run_id,
            at=at,
        )
    ]


def _said_by(error: SerializableErrorInfo) -> tuple[str, bool]:
    """The message of our own error in the chain, or else of its root; and whether it is ours."""
    chain = []
    link: SerializableErrorInfo | None = error
    while link:
        chain.append(link)
        link = link.cause
    ours = [link for link in chain if link.cls_name in _OURS]
    found = (ours or chain)[-1]
    message = re.sub(rf"^(\S+\.)?{re.escape(str(found.cls_name))}: ", "", found.message.strip())
    return message, bool(ours)


def _is_held_back(event: dg.DagsterEvent) -> bool:
    error = event.step_failure_data.error
    return error is not None and error.cls_name == _BLOCKED_BY_CHECK


def _is_ours(event: dg.DagsterEvent) -> bool:
    """Whether the message was worded by the platform, so that it quotes values in known places."""
    given = event.step_failure_data.user_failure_data
    return bool(given and given.description)


def _asset_of(failed: dg.DagsterEvent, entries: Sequence[dg.DagsterEvent]) -> str:
    """The first of the assets that a step should have made: by it, its mending is known."""
    planned = sorted(
        event.asset_key.to_user_string()
        for event in entries
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        and event.step_key == failed.step_key
        and event.asset_key
    )
    return planned[0] if planned else ""


def _days(tags: Mapping[str, str]) -> tuple[str, ...]:

    if day := tags.get("dagster/partition"):
        return (day,)
    first = tags.get("dagster/asset_partition_range_start")
    last = tags.get("dagster/asset_partition_range_end")
    return tuple(days_between(first, last)) if first and last else ()


def _fit(text: str, *, ours: bool = True) -> str:
    return visible(without_secrets(without_values(text, ours=ours)), keep="\n")


def _first(name: str) -> str:
    """The use case: assets and jobs are named after it."""
    return name.replace("/", "_").split("_")[0]
