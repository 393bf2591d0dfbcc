"""Gathers what is known of a registered version into its model card, and keeps it with the version.

How the card looks is in `ml_assets.report`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_assets.champions import GATE, Reign, history, in_words
from ml_assets.core.evaluation import Evaluation
from ml_assets.environment import Environment
from ml_assets.pages import replace_page
from ml_assets.report.card import (
    Approval,
    Card,
    Decision,
    Disagreement,
    Guardrail,
    Manifest,
    Period,
    Status,
    model_card,
)
from ml_assets.resources.lake import Lake
from ml_assets.resources.registry import Registry
from ml_assets.use_case import UseCase

CARD_FILE = "model_card.html"


class CardError(OSError):
    """The copy of a card in the project's folder cannot be written; the message says what to do."""


@dataclass(frozen=True)
class Written:
    """A model card that was written.

    Attributes:
        file: A copy on this machine, to open in a browser.
        status: Whether the version serves: champion, challenger or retired.
    """

    file: Path
    status: Status


def write_card(
    environment: Environment, use_case: UseCase, lake: Lake, registry: Registry, version: int
) -> Written:
    """Write a version's model card into the registry and the project's folder, or write it anew.

    Raises:
        RegistryError: The registry does not have the version, or does not take the card.
        CardError: The project's folder does not take it; an older copy stays as it was.
    """
    card = gather(use_case, lake, registry, version)
    return Written(keep_card(environment, use_case, registry, card), card.status)


def keep_card(environment: Environment, use_case: UseCase, registry: Registry, card: Card) -> Path:
    """Write a card into the registry, and then into the project's folder.

    Returns:
        The copy in the project's folder.

    Raises:
        RegistryError: The registry does not take the card.
        CardError: The project's folder does not take it; an older copy stays as it was.
    """
    page = model_card(card).encode()
    registry.attach(use_case.name, card.version, {CARD_FILE: page})
    file = card_file(environment, use_case, card.version)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_page(file, page)
    except OSError as error:
        raise CardError(
            f"the model card {file} cannot be written: {error.strerror}. Make room there, or give "
            "this user the right to write."
        ) from error
    return file


def card_file(environment: Environment, use_case: UseCase, version: int) -> Path:
    """Where the copy of a version's card lies on this machine."""
    return environment.reports_folder / use_case.name / f"model_card_v{version}.html"


def gather(use_case: UseCase, lake: Lake, registry: Registry, version: int) -> Card:
    """All that a version's card shows, from the registry and the history of champions."""
    registered = registry.version(use_case.name, version)
    bundle = registry.load(use_case.name, version, registered.sha256)
    evaluation = Evaluation.model_validate_json(
        registry.artifact(use_case.name, version, "evaluation.json")
    )
    manifest = _json(registry, use_case, version, "training_manifest.json")
    drift = _json(registry, use_case, version, "drift.json")
    gate = _gate(use_case, lake, registry, version)
    reigns = history(lake, use_case)
    facts = bundle.facts
    rows = {
        "train": facts["train_rows"],
        "validation": facts["validation_rows"],
        "calibration": facts["calibration_rows"],
        "holdout": evaluation.parts["holdout"].rows,
    }
    return Card(
        use_case=use_case.name,
        description=use_case.description,
        purpose=use_case.purpose,
        limits=use_case.limits,
        owners=use_case.owners,
        version=version,
        status=_status(reigns, version, lake.newest(f"{use_case.name}/model")),
        as_of=registered.as_of,
        bundle_sha256=bundle.sha256,
        trees_sha256=bundle.trees_sha256,
        code_version=facts["code_version"],
        lock_sha256=registered.tags.get("lock_sha256", ""),
        seed=facts["recipe"]["seed"],
        manifest=Manifest(**{name: manifest[name] for name in Manifest.__dataclass_fields__}),
        split={
            part: Period(facts["split"][part][0], facts["split"][part][-1], count)
            for part, count in rows.items()
        },
        hyperparameters=facts["recipe"]["parameters"],
        hyperparameters_from=facts["hyperparameters"],
        rounds=facts["rounds"],
        evaluation=evaluation,
        decision=_decision(gate) if gate else None,
        duplicates=bundle.duplicates,
        dropped=use_case.dropped,
        previous_version=drift["since_version"],
        drift=tuple(sorted(drift["psi"].items(), key=lambda item: (-item[1], item[0]))),
        approvals=_approvals(reigns, version, registered.as_of, gate),
        opponent=gate["against"] if gate else None,
        disagreements=tuple(
            Disagreement(**each) for each in (gate["disagreements"] if gate else ())
        ),
    )


def _decision(gate: dict[str, Any]) -> Decision:
    return Decision(
        rule=gate["verdict"]["rule"],
        reason=gate["verdict"]["reason"],
        guardrails=tuple(
            Guardrail(each["name"], each["holds"], each["finding"]) for each in gate["guardrails"]
        ),
    )


def _approvals(
    reigns: list[Reign], version: int, as_of: str, gate: dict[str, Any] | None
) -> tuple[Approval, ...]:
    """What was decided about a version, by whose word; and from when to when it served."""
    found: list[Approval] = []
    if gate and not any(reign.version == version and reign.by == GATE for reign in reigns):
        event = "judged" if gate["verdict"]["promote"] else "stays challenger"
        found.append(Approval(as_of, event, GATE, gate["verdict"]["reason"]))
    for place, reign in enumerate(reigns):
        if reign.version != version:
            continue
        after = reigns[place + 1] if place + 1 < len(reigns) else None
        event = "serves again" if reign.event == "rolled_back" else reign.event.replace("_", " ")
        found.append(
            Approval(
                when=_instant(reign),
                event=event,
                by=reign.by,
                reason=in_words(reigns, place),
                served_from=_instant(reign),
                served_to=_instant(after) if after else "",
            )
        )
        if after and after.event == "rolled_back":
            reason = f"withdrawn, and barred from the gate: {after.reason}"
            found.append(Approval(_instant(after), "rolled back", after.by, reason))
    return tuple(found)


def _instant(reign: Reign) -> str:
    return f"{reign.at:%Y-%m-%d %H:%M} UTC"


def _status(reigns: list[Reign], version: int, newest: dict[str, Any] | None) -> Status:
    if reigns and reigns[-1].version == version:
        return "champion"
    return "challenger" if newest and version == newest["version"] else "retired"


def _gate(use_case: UseCase, lake: Lake, registry: Registry, version: int) -> dict[str, Any] | None:
    """What the gate said of a version, or None if it has not judged it yet."""
    table = f"{use_case.name}/champion"
    days = lake.rows_per_day(table)
    if not days:
        return None
    judged = lake.read(table, min(days), max(days))["challenger_version"].to_list()
    if version not in judged:
        return None
    return _json(registry, use_case, version, "gate.json")


def _json(registry: Registry, use_case: UseCase, version: int, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(registry.artifact(use_case.name, version, path))
    return found
