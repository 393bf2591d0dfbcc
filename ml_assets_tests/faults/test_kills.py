"""After a SIGKILL at any moment, the next ordinary run ends in the tables of an undisturbed one.

`KILLS` and `KILL_SEED` ask for another round, `KILL_REPORT` for a report in Markdown and JSON:

    KILLS=200 KILL_REPORT=kills.md python -m pytest -n0 -m slow ml_assets_tests/faults/test_kills.py

Each kill is described in `kills.py`, and the homes of failures are kept below pytest's folder.
"""

import os
from pathlib import Path

import pytest

from ml_assets_tests.faults.kills import COMMIT, Aim, Report, plan, run

pytestmark = [pytest.mark.slow, pytest.mark.faults]

KILLS = int(os.environ.get("KILLS", "25"))
SEED = int(os.environ.get("KILL_SEED", "20261124"))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    place = os.environ.get("KILL_REPORT")
    return run(
        tmp_path_factory.mktemp("kills"),
        kills=KILLS,
        seed=SEED,
        report=Path(place).absolute() if place else None,
    )


def test_the_next_run_ends_in_the_tables_of_an_undisturbed_one(report: Report) -> None:
    assert not report.failures, "\n\n".join(report.failures)


def test_no_fewer_kills_than_asked_for_hit_the_job(report: Report) -> None:
    assert report.total >= KILLS, report.markdown()


def test_every_phase_was_hit(report: Report) -> None:
    hits = report.per_phase()
    # A write is over in milliseconds, and a kill meant for it may come when it has committed.
    hits["write and commit"] = hits.pop("write") + hits.pop(COMMIT)
    least = KILLS // 25  # a round that is cut short need not hit them all

    assert {phase: n for phase, n in hits.items() if n < least} == {}, report.markdown()


def test_a_seed_means_the_same_kills() -> None:
    planned = [plan(number, SEED) for number in range(60)]

    assert planned == [plan(number, SEED) for number in range(60)]
    assert planned != [plan(number, SEED + 1) for number in range(60)]
    assert len({(scenario, aim.kind, aim.phase) for scenario, aim, _ in planned[:50]}) == 41
    assert [second is None for _, _, second in planned] == 12 * [True, True, True, True, False]
    assert all(isinstance(aim, Aim) and 0 <= aim.fraction < 1 for _, aim, _ in planned)
