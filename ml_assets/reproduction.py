"""Training a registered version again from its manifest, to prove where it came from.

Its rows are read at the table version that the manifest names, however much the table has changed
since; its recipe comes from the model's own facts, whatever the configuration says now.
"""

import json
from dataclasses import dataclass

from ml_assets.assets.training import labelled_rows, model_code_version
from ml_assets.core.bundle import Bundle
from ml_assets.core.features import content_hash
from ml_assets.core.splits import TimeSplit
from ml_assets.core.threshold import Costs
from ml_assets.core.training import Recipe, train
from ml_assets.environment import Environment
from ml_assets.resources.lake import Lake
from ml_assets.resources.registry import Registry
from ml_assets.use_case import UseCase, columns

# The facts that training was told; all others it found out itself.
_TOLD = ("use_case", "as_of", "code_version", "hyperparameters", "training_set")


@dataclass(frozen=True)
class Reproduction:
    """What training a version again has shown.

    Attributes:
        version: The version.
        same_rows: Whether its rows are still what they were.
        same_model: Whether the trees have the same bytes.
        same_bundle: Whether everything has: trees, vocabulary, calibration, threshold, facts.
        differences: Parts of the bundle that differ.
        code_then: Version of the code and settings that trained it.
        code_now: That of now.
        xgboost_then: Version of XGBoost that trained it.
        xgboost_now: The one installed.
        sha256: The registered bundle's hash.
    """

    version: int
    same_rows: bool
    same_model: bool
    same_bundle: bool
    differences: tuple[str, ...]
    code_then: str
    code_now: str
    xgboost_then: str
    xgboost_now: str
    sha256: str

    @property
    def verdict(self) -> str:
        """The outcome in one sentence, with the likely cause where it failed."""
        name = f"version {self.version}"
        if self.same_bundle:
            return f"{name} is reproduced: the same bytes, SHA-256 {self.sha256}"
        if not self.same_rows:
            cause = (
                "the rows at the table version of its manifest are not those it learned from: the "
                "table was replaced or restored since"
            )
        elif self.xgboost_now != self.xgboost_then:
            cause = f"it was trained by XGBoost {self.xgboost_then}, and {self.xgboost_now} is here"
        elif self.code_now != self.code_then:
            cause = (
                f"it was trained by code and settings {self.code_then}, and these are "
                f"{self.code_now}: check out the commit that trained it"
            )
        else:
            cause = (
                "rows, recipe, code and XGBoost are the same, so something else decides: another "
                "processor, or another version of a library (environment.txt in the registry)"
            )
        return f"{name} is not reproduced ({', '.join(self.differences)} differ): {cause}"


def reproduce(
    environment: Environment, use_case: UseCase, lake: Lake, registry: Registry, version: int
) -> Reproduction:
    """Train a version again, and compare the bytes.

    Raises:
        RegistryError: The registry does not have the version.
        LakeError: The rows of that time are gone.
    """
    registered = registry.version(use_case.name, version)
    original = registry.load(use_case.name, version, registered.sha256)
    manifest = json.loads(registry.artifact(use_case.name, version, "training_manifest.json"))
    frame = labelled_rows(use_case, lake, manifest, manifest["first_day"], manifest["last_day"])
    recipe, split = original.facts["recipe"], original.facts["split"]
    again = train(
        frame,
        TimeSplit(**{part: tuple(days) for part, days in split.items()}),
        Recipe(**{**recipe, "costs": Costs(**recipe["costs"])}),
        inputs=use_case.inputs,
        categorical=use_case.categorical,
        target=use_case.target,
        threads=environment.training.threads,
        facts={name: original.facts[name] for name in _TOLD},
    ).bundle
    return Reproduction(
        version=version,
        same_rows=content_hash(frame, columns(use_case.features)) == manifest["content_hash"],
        same_model=again.trees == original.trees,
        same_bundle=again.sha256 == original.sha256,
        differences=_differences(original, again),
        code_then=original.facts["code_version"],
        code_now=model_code_version(use_case, environment),
        xgboost_then=original.facts["xgboost"],
        xgboost_now=again.facts["xgboost"],
        sha256=original.sha256,
    )


def _differences(original: Bundle, again: Bundle) -> tuple[str, ...]:
    parts = ("trees", "inputs", "vocabulary", "calibration", "threshold", "duplicates")
    found = [name for name in parts if getattr(original, name) != getattr(again, name)]
    # Through JSON, as the original has been: tuples are lists there.
    then, now = (json.loads(json.dumps(dict(each.facts))) for each in (original, again))
    found += [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    return tuple(found)
