"""The model card, through real runs: where it is kept, and that it follows who serves."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import dagster as dg
import pytest

from ml_assets.alerts import cause_and_remedy
from ml_assets.model_cards import CardError, card_file, gather, write_card
from ml_assets.resources.registry import Registry, RegistryError
from ml_assets_tests.conftest import SMALL, Platform
from ml_assets_tests.faults.test_outages import disk, fill

LAST = "2026-01-16"


def status(platform: Platform, version: int) -> str:
    """As the card in the registry tells it; the copy on this machine must be the same."""
    kept = platform.registry.artifact("claims", version, "model_card.html")
    file = platform.environment.home / "reports/claims" / f"model_card_v{version}.html"
    assert file.read_bytes() == kept
    found = re.search(rf"<title>claims model, version {version} \((\w+)\)", kept.decode())
    assert found
    return found[1]


def test_a_training_leaves_a_card_here_and_with_the_version(trained: Platform) -> None:
    metadata = trained.metadata("model_card", LAST)

    assert status(trained, 1) == "champion"
    assert (metadata["version"], metadata["status"]) == (1, "champion")
    assert metadata["model_card"] == "http://127.0.0.1:3001/claims/model_card_v1.html"


def test_the_card_tells_what_the_tables_and_the_bundle_say(trained: Platform) -> None:
    model = trained.table("model", LAST).iloc[0]
    manifest = trained.table("training_set", LAST).iloc[0]

    card = gather(SMALL, trained.lake, trained.registry, 1)

    assert (card.version, card.as_of, card.status) == (1, LAST, "champion")
    assert card.bundle_sha256 == model["sha256"]
    assert card.code_version == model["code_version"]
    assert card.manifest.content_hash == manifest["content_hash"]
    assert card.evaluation.parts["holdout"].metrics["log_loss"].value == model["log_loss"]
    assert list(card.split) == ["train", "validation", "calibration", "holdout"]
    assert (card.split["holdout"].first_day, card.split["holdout"].last_day) == (
        model["holdout_first_day"],
        model["holdout_last_day"],
    )
    assert card.split["train"].rows == model["train_rows"]
    assert card.decision is not None
    assert card.decision.rule == "first"
    assert all(guardrail.passed for guardrail in card.decision.guardrails)
    assert card.opponent is None


@contextmanager
def in_the_way(folder: Path) -> Iterator[None]:
    folder.write_text("in the way")
    yield
    folder.unlink()


@contextmanager
def full(folder: Path) -> Iterator[None]:
    with disk(folder, 64):
        fill(folder, leave_kilobytes=8)
        yield
        assert not list(folder.rglob("*.[0-9]*")), "no half of a card is left"


def card_written(platform: Platform) -> dg.AssetCheckEvaluation:
    return platform.check("model_card", "card_written")


@pytest.mark.parametrize("broken", [in_the_way, full])
def test_a_card_that_cannot_be_written_warns_and_the_day_stands(
    trained: Platform, broken: Callable[[Path], AbstractContextManager[None]]
) -> None:
    reports = trained.environment.reports_folder
    shutil.rmtree(reports)

    with broken(reports):
        trained.run("training", LAST, only="model_card")
        evaluation, metadata = card_written(trained), trained.metadata("model_card", LAST)
        with pytest.raises(CardError, match="Make room there"):
            write_card(trained.environment, SMALL, trained.lake, trained.registry, 1)
    shutil.rmtree(reports, ignore_errors=True)
    trained.run("training", LAST, only="model_card")

    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    cause, remedy = cause_and_remedy(evaluation.description or "", "")
    assert str(card_file(trained.environment, SMALL, 1)) in cause
    assert "materialise `model_card` for this day again" in remedy
    assert "model_card" not in metadata, "a link would lead nowhere"
    assert (metadata["version"], metadata["status"]) == (1, "champion")
    assert card_written(trained).passed
    assert status(trained, 1) == "champion"


def test_a_registry_that_takes_no_card_warns_too(
    trained: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RegistryError("model_card.html cannot be written to the registry: no space left.")

    monkeypatch.setattr(Registry, "attach", refuse)
    trained.run("training", LAST, only="model_card")

    assert (card_written(trained).description or "").startswith("model_card.html cannot be written")


def test_writing_a_card_again_gives_the_same_page(trained: Platform) -> None:
    before = trained.registry.artifact("claims", 1, "model_card.html")

    write_card(trained.environment, SMALL, trained.lake, trained.registry, 1)

    assert trained.registry.artifact("claims", 1, "model_card.html") == before


def test_the_cards_of_both_follow_when_a_challenger_takes_over(platform: Platform) -> None:
    platform.arrive("2026-01-05", LAST)
    platform.run("ingestion", "2026-01-05", LAST)
    weak = platform.environment.training.model_copy(update={"max_rounds": 1})
    environment = platform.environment.model_copy(update={"training": weak})
    Platform(environment, platform.instance).run("training", "2026-01-14")
    assert status(platform, 1) == "champion"

    platform.run("training", "2026-01-15")

    assert platform.table("champion", "2026-01-15")["decision"][0] == "promoted"
    assert (status(platform, 1), status(platform, 2)) == ("retired", "champion")
    Platform(environment, platform.instance).run("training", LAST)
    assert (status(platform, 2), status(platform, 3)) == ("champion", "challenger")


def test_the_next_model_is_made_though_the_files_of_the_last_are_lost(platform: Platform) -> None:
    platform.arrive("2026-01-05", LAST)
    platform.run("ingestion", "2026-01-05", LAST)
    platform.run("training", "2026-01-15")
    reference = next(Path(platform.registry.artifacts).rglob("reference.json"))
    reference.unlink()

    platform.run("training", LAST)

    card = gather(SMALL, platform.lake, platform.registry, 2)
    assert (card.previous_version, card.drift) == (1, ())


def test_drift_is_that_of_the_newest_days_since_the_version_before(platform: Platform) -> None:
    platform.arrive("2026-01-05", LAST)
    platform.run("ingestion", "2026-01-05", "2026-01-15")
    platform.run("training", "2026-01-15")
    # Everybody who came in on the newest day of the next holdout is older.
    platform.replace_day("2026-01-14", lambda rows: rows.assign(age=80))
    platform.run("ingestion", "2026-01-14", LAST)

    platform.run("training", LAST)

    drift = dict(gather(SMALL, platform.lake, platform.registry, 2).drift)
    assert max(drift, key=lambda name: drift[name]) == "age"
    assert drift["age"] > 0.25
