"""The history of who serves: only ever added to, by the gate or by hand, one deed at a time."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from pathlib import Path

import pandas as pd
import pytest

from ml_assets.build import resources
from ml_assets.champions import (
    GATE,
    Hand,
    NoChampion,
    Reign,
    barred,
    champion,
    earlier_champions,
    history,
    promote,
    record,
    remedy,
    rollback,
)
from ml_assets.core.bundle import MODEL_FILE, Bundle
from ml_assets.environment import Environment
from ml_assets.resources.lake import Lake
from ml_assets.resources.registry import Registry, RegistryError
from ml_assets.use_case import UseCase
from ml_assets_tests.conftest import SMALL, small_environment

DAWN = datetime(2026, 1, 20, 6, tzinfo=UTC)


@dataclass
class Service:
    """A use case of its own with four registered versions, of whom nobody serves yet."""

    environment: Environment
    use_case: UseCase
    lake: Lake
    registry: Registry

    def __post_init__(self) -> None:
        self.hours = count()
        self.bundles = [
            Bundle(f"trees {number}".encode(), ("amount",), {}, facts={"of": self.use_case.name})
            for number in range(1, 5)
        ]
        for number, bundle in enumerate(self.bundles, 1):
            version = self.registry.register(
                self.use_case.name, bundle, as_of=f"2026-01-{number:02}", metrics={}, tags={}
            )
            assert version == number

    def now(self) -> datetime:
        return DAWN + timedelta(hours=next(self.hours))

    def gate(self, version: int, event: str = "promoted") -> None:
        sha256 = self.bundles[version - 1].sha256
        day = f"2026-01-{version:02}"
        rule = "first" if event == "first" else "superior"
        record(
            self.lake,
            self.use_case,
            Reign(day, self.now(), version, sha256, event, rule, GATE, "numbers"),
        )
        self.registry.set_alias(self.use_case.name, "champion", version)

    def promote(self, version: int, because: str = "it is better") -> Reign:
        hand = Hand("ada", because, self.now())
        return promote(self.environment, self.use_case, self.lake, self.registry, version, hand)

    def rollback(self, because: str = "claims came in") -> Reign:
        hand = Hand("ada", because, self.now())
        return rollback(self.environment, self.use_case, self.lake, self.registry, hand)

    def history(self) -> list[Reign]:
        return history(self.lake, self.use_case)

    def served(self) -> list[int]:
        return [reign.version for reign in self.history()]

    def alias(self) -> int | None:
        pointed = [
            each.version
            for each in self.registry.versions(self.use_case.name)
            if "champion" in each.aliases
        ]
        return pointed[0] if pointed else None

    def files(self, version: int) -> Path:
        """The folder with a version's files in the registry."""
        content = self.bundles[version - 1].trees
        found = Path(self.registry.artifacts, self.use_case.name).rglob(MODEL_FILE)
        return next(file.parent for file in found if file.read_bytes() == content)

    def lose(self, version: int) -> None:
        """Take a version's files from the registry and from the cache."""
        shutil.rmtree(self.files(version))
        cached = Path(self.registry.cache) / self.bundles[version - 1].sha256
        shutil.rmtree(cached, ignore_errors=True)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return small_environment(tmp_path_factory.mktemp("champions"))


@pytest.fixture
def service(environment: Environment, request: pytest.FixtureRequest) -> Iterator[Service]:
    doors = resources(environment)
    name = f"claims_{abs(hash(request.node.name))}"
    return Service(environment, replace(SMALL, name=name), doors["lake"], doors["registry"])


def test_before_any_decision_nobody_serves_and_the_remedy_is_told(service: Service) -> None:
    assert service.history() == []
    with pytest.raises(NoChampion, match=r"no model serves yet: .*job claims_\d+_training"):
        champion(service.lake, service.use_case)


def test_what_is_recorded_is_read_back_as_it_was(service: Service) -> None:
    reign = Reign(
        "2026-01-05",
        datetime(2026, 1, 6, 1, 2, 3, 456789, tzinfo=UTC),
        2,
        service.bundles[1].sha256,
        "promoted_by_hand",
        "hand",
        "ada",
        "she said: 'é'",
    )

    record(service.lake, service.use_case, reign)

    assert service.history() == [reign]
    assert champion(service.lake, service.use_case) == reign


def test_rows_are_only_ever_added(service: Service) -> None:
    deeds = [
        lambda: service.gate(1, "first"),
        lambda: service.gate(2),
        service.rollback,
        lambda: service.gate(3),
        lambda: service.promote(2),
        service.rollback,
    ]
    table = f"{service.use_case.name}/champion_history"
    before = pd.DataFrame()
    for deed in deeds:
        deed()
        after = service.lake.read(table, "2026-01-01", "2026-12-31").sort_values("at")
        after = after.reset_index(drop=True)

        assert len(after) == len(before) + 1
        if len(before):
            pd.testing.assert_frame_equal(after.head(len(before)), before)
        before = after
    assert service.served() == [1, 2, 1, 3, 2, 3]


def test_a_promotion_by_hand_serves_and_says_by_whom_when_and_why(service: Service) -> None:
    service.gate(1, "first")

    reign = service.promote(3, "the head of claims asked for it")

    assert reign == champion(service.lake, service.use_case) == service.history()[-1]
    assert (reign.version, reign.sha256) == (3, service.bundles[2].sha256)
    assert (reign.event, reign.rule, reign.by) == ("promoted_by_hand", "hand", "ada")
    assert reign.reason == "the head of claims asked for it"
    assert (reign.day, reign.at) == ("2026-01-20", DAWN + timedelta(hours=1))
    assert service.alias() == 3


def test_the_day_of_a_deed_by_hand_is_the_local_one(service: Service) -> None:
    hand = Hand("ada", "because", datetime(2026, 7, 1, 23, 30, tzinfo=UTC))

    reign = promote(service.environment, service.use_case, service.lake, service.registry, 1, hand)

    assert reign.day == "2026-07-02", "it is summer in London"


def test_a_first_champion_can_be_made_by_hand(service: Service) -> None:
    service.promote(2)

    assert service.served() == [2]
    assert service.alias() == 2


@pytest.mark.parametrize(
    ("version", "error", "told"),
    [
        (2, NoChampion, r"version 2 serves already, since 2026-01-20 07:00 UTC\. Nothing was"),
        (9, RegistryError, r"has no version 9 .* newest known: 4, 3, 2, 1"),
    ],
)
def test_a_promotion_that_cannot_be_changes_nothing(
    service: Service, version: int, error: type[Exception], told: str
) -> None:
    service.gate(1, "first")
    service.gate(2)
    before = service.history()

    with pytest.raises(error, match=told):
        service.promote(version)

    assert service.history() == before
    assert service.alias() == 2


@pytest.mark.parametrize("harm", ["gone", "altered", "cut short"])
def test_a_version_whose_files_are_not_sound_is_not_promoted(service: Service, harm: str) -> None:
    service.gate(1, "first")
    if harm == "gone":
        service.lose(3)
    else:
        file = service.files(3) / MODEL_FILE
        file.write_bytes(b"other" if harm == "altered" else file.read_bytes()[:-1])
    before = service.history()

    with pytest.raises(RegistryError, match=r"claims_\d+ version 3"):
        service.promote(3)

    assert service.history() == before
    assert service.alias() == 1


def test_a_rollback_gives_the_service_back_to_the_one_before(service: Service) -> None:
    service.gate(1, "first")
    service.gate(2)
    service.gate(3)

    reign = service.rollback("too many referrals")

    assert (reign.version, reign.sha256) == (2, service.bundles[1].sha256)
    assert (reign.event, reign.rule, reign.by) == ("rolled_back", "hand", "ada")
    assert (reign.reason, reign.day) == ("too many referrals", "2026-01-20")
    assert champion(service.lake, service.use_case) == reign
    assert service.alias() == 2


def test_a_rollback_is_done_though_the_alias_cannot_follow(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.gate(1, "first")
    service.gate(2)

    def away(*_: object) -> None:
        raise RegistryError("the registry is away")

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "set_alias", away)
        reign = service.rollback()

    assert champion(service.lake, service.use_case) == reign
    assert (service.served(), service.alias()) == ([1, 2, 1], 2)
    with pytest.raises(NoChampion, match=r"version 1 serves already"):
        service.promote(1)
    assert service.alias() == 1, "saying it again sets the alias"
    assert service.served() == [1, 2, 1]


def test_a_second_rollback_passes_over_the_one_that_was_rolled_back(service: Service) -> None:
    service.gate(1, "first")
    service.gate(2)
    service.gate(3)

    service.rollback()
    service.rollback()

    assert service.served() == [1, 2, 3, 2, 1]
    assert set(barred(service.history())) == {2, 3}
    with pytest.raises(NoChampion, match=r"version 1 is the only one .*ml-assets promote VERSION"):
        service.rollback()
    assert service.served() == [1, 2, 3, 2, 1]
    assert service.alias() == 1


def test_a_rollback_after_a_rollback_and_a_promotion_goes_back_to_who_served(
    service: Service,
) -> None:
    service.gate(1, "first")
    service.gate(2)
    service.rollback()
    service.gate(3)

    service.rollback()

    assert service.served() == [1, 2, 1, 3, 1]


def test_a_version_is_barred_until_a_hand_brings_it_back(service: Service) -> None:
    service.gate(1, "first")
    service.gate(2)
    assert barred(service.history()) == {}

    deed = service.rollback("it drifts")
    assert barred(service.history()) == {2: deed}

    service.gate(3)
    assert set(barred(service.history())) == {2}, "others may come and go"

    service.promote(2)
    assert barred(service.history()) == {}


def test_a_rollback_with_nobody_before_changes_nothing(service: Service) -> None:
    with pytest.raises(NoChampion, match="no model serves yet"):
        service.rollback()
    service.gate(1, "first")

    with pytest.raises(NoChampion, match=r"version 1 is the only one that ever served"):
        service.rollback()

    assert service.served() == [1]
    assert service.alias() == 1


def test_a_rollback_to_files_that_are_gone_changes_nothing(service: Service) -> None:
    service.gate(1, "first")
    service.gate(2)
    service.lose(1)

    with pytest.raises(RegistryError, match=r"claims_\d+ version 1"):
        service.rollback()

    assert service.served() == [1, 2]
    assert service.alias() == 2


def test_the_earlier_champions_are_named_once_newest_first(service: Service) -> None:
    service.gate(1, "first")
    service.gate(2)
    service.gate(1)
    service.gate(3)
    service.gate(4)

    found = earlier_champions(service.lake, service.use_case)

    assert [reign.version for reign in found] == [3, 1, 2]


def test_the_remedy_is_the_newest_earlier_champion_that_loads(service: Service) -> None:
    for version in (1, 2, 3):
        service.gate(version)
    service.lose(2)

    told = remedy(service.lake, service.use_case, service.registry)
    service.lose(1)
    told_without = remedy(service.lake, service.use_case, service.registry)

    assert "last champion that loads is version 1: ml-assets promote 1 --because TEXT" in told
    assert "No earlier champion loads either: restore" in told_without


def test_a_deed_counts_as_the_newest_though_the_clock_went_back(service: Service) -> None:
    service.gate(1, "first")
    service.gate(2)
    early = Hand("ada", "because", DAWN - timedelta(days=3))

    promote(service.environment, service.use_case, service.lake, service.registry, 3, early)

    assert champion(service.lake, service.use_case).version == 3 == service.alias()
    assert service.served() == [1, 2, 3]


DEEDS = """
import sys
from datetime import UTC, datetime
from dataclasses import replace
from pathlib import Path
from ml_assets.build import resources
from ml_assets.champions import Hand, NoChampion, promote
from ml_assets_tests.conftest import SMALL, small_environment

home, name, versions = sys.argv[1], sys.argv[2], sys.argv[3:]
environment = small_environment(Path(home))
use_case, doors = replace(SMALL, name=name), resources(environment)
doors["registry"].versions(name)
print("ready", flush=True)
sys.stdin.readline()
done = 0
for version in versions:
    hand = Hand("ada", "because", datetime.now(UTC))
    try:
        promote(environment, use_case, doors["lake"], doors["registry"], int(version), hand)
        done += 1
    except NoChampion:
        pass
print(done)
"""


def test_promotions_by_two_processes_at_once_leave_one_consistent_history(
    service: Service,
) -> None:
    service.gate(4, "first")
    home = str(service.environment.home)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DEEDS, home, service.use_case.name, *versions],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for versions in (["1", "2", "3"] * 3, ["1", "3", "2"] * 3)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"

    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    done = [int(process.communicate()[0]) for process in processes]

    served = service.served()
    assert len(served) == 1 + sum(done)
    assert min(done) >= 1
    assert all(earlier != later for earlier, later in pairwise(served)), "one after the other"
    assert service.alias() == served[-1]
