"""A trained model as two plain files, `model.ubj` and `bundle.json`; never a pickle.

The bundle holds everything that scoring needs: the trees, the inputs in order, the vocabulary that
turns each category into the code the trees were grown on, the calibration and the decision
threshold. Fitting is in `ml_assets.core.training`, tables of predictions in
`ml_assets.core.scoring`.

This module also travels inside each registered MLflow model, so that it scores the same there. So
it imports nothing of ml_assets, and no library but numpy, pandas and xgboost.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

MODEL_FILE = "model.ubj"
BUNDLE_FILE = "bundle.json"

Category = str | int


class CorruptBundle(ValueError):
    """A model file is missing, cut short or altered."""


@dataclass(frozen=True)
class Bundle:
    """A model that can score raw feature values.

    Attributes:
        trees: The XGBoost model in UBJSON.
        inputs: Column names in the order the trees know them.
        vocabulary: For each categorical input, its known values; a value's place is its code.
        calibration: How raw log-odds become probabilities: see `calibrated`.
        threshold: Probability from which an application is referred, 0 to 1.
        duplicates: Columns that repeat an input, and that input: the trees do not see them.
        facts: How the model came to be, as plain JSON values: seed, parameters, manifest, metrics.
    """

    trees: bytes
    inputs: tuple[str, ...]
    vocabulary: Mapping[str, tuple[Category, ...]]
    calibration: Mapping[str, Any] = field(default_factory=lambda: {"method": "none"})
    threshold: float = 0.5
    duplicates: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """The hash that names this bundle: over `bundle.json`, which holds that of the trees."""
        return hashlib.sha256(self.to_files()[BUNDLE_FILE]).hexdigest()

    @cached_property
    def trees_sha256(self) -> str:
        """The hash of the trees alone."""
        return hashlib.sha256(self.trees).hexdigest()

    def to_files(self) -> dict[str, bytes]:
        """The content of each file of the bundle; the same bundle gives the same bytes."""
        content = {
            "format": 2,
            "inputs": self.inputs,
            "vocabulary": self.vocabulary,
            "calibration": self.calibration,
            "threshold": self.threshold,
            "duplicates": self.duplicates,
            "facts": self.facts,
            "trees_sha256": self.trees_sha256,
        }
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
        return {MODEL_FILE: self.trees, BUNDLE_FILE: text.encode()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], sha256: str | None = None) -> "Bundle":
        """Read a bundle and check it against its hashes.

        Args:
            files: Content of `model.ubj` and `bundle.json`.
            sha256: The hash that the bundle was registered with, if known.

        Raises:
            CorruptBundle: A file is missing, unreadable, or differs from its hash.
        """
        for name in (MODEL_FILE, BUNDLE_FILE):
            if name not in files:
                raise CorruptBundle(f"{name} is missing")
        found = hashlib.sha256(files[BUNDLE_FILE]).hexdigest()
        if sha256 is not None and found != sha256:
            raise CorruptBundle(f"{BUNDLE_FILE} has SHA-256 {found}, expected {sha256}")
        try:
            content = json.loads(files[BUNDLE_FILE])
            expected = content["trees_sha256"]
            vocabulary = {name: tuple(values) for name, values in content["vocabulary"].items()}
            bundle = cls(
                trees=files[MODEL_FILE],
                inputs=tuple(content["inputs"]),
                vocabulary=vocabulary,
                calibration=content["calibration"],
                threshold=float(content["threshold"]),
                duplicates=content["duplicates"],
                facts=content["facts"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptBundle(f"{BUNDLE_FILE} cannot be read: {error!r}") from error
        found = hashlib.sha256(files[MODEL_FILE]).hexdigest()
        if found != expected:
            raise CorruptBundle(f"{MODEL_FILE} has SHA-256 {found}, expected {expected}")
        return bundle


def margins(bundle: Bundle, frame: pd.DataFrame, threads: int = 1) -> np.ndarray:
    """Raw score of each row, before calibration; the same for a row alone or in a batch.

    Args:
        bundle: The model.
        frame: Rows with the bundle's inputs, in any column order; further columns are ignored.
        threads: Threads to score with.

    Returns:
        float64 array of shape (rows,), in log-odds.
    """
    if frame.empty:
        return np.empty(0, dtype=np.float64)
    scores: np.ndarray = _booster(bundle, threads).predict(
        _matrix(bundle, frame, threads), output_margin=True
    )
    return scores.astype(np.float64)


def calibrated(margin: np.ndarray, calibration: Mapping[str, Any]) -> np.ndarray:
    """Probabilities for raw log-odds, by one of four calibrations.

    With s for the raw log-odds and p for their sigmoid, the calibrated log-odds are

    - `none`: s
    - `platt`: slope * s + intercept (Platt, 1999)
    - `beta`: a * ln p - b * ln(1 - p) + intercept (Kull et al., 2017)

    and `isotonic` interpolates between the points (x, y), x in log-odds and y a probability.

    Returns:
        float64 array of the same shape, each from 0 to 1.
    """
    method = calibration["method"]
    if method == "isotonic":
        return np.interp(margin, calibration["x"], calibration["y"])
    if method == "platt":
        margin = calibration["slope"] * margin + calibration["intercept"]
    elif method == "beta":
        log_p, log_q = -np.logaddexp(0, -margin), -np.logaddexp(0, margin)
        margin = calibration["a"] * log_p - calibration["b"] * log_q + calibration["intercept"]
    return np.asarray(np.exp(-np.logaddexp(0, -margin)))


def predict(bundle: Bundle, frame: pd.DataFrame, threads: int = 1) -> np.ndarray:
    """Calibrated probability of a positive outcome per row; alone or in a batch, to the bit.

    Args:
        bundle: The model.
        frame: Rows with the bundle's inputs, in any column order; further columns are ignored.
        threads: Threads to score with.

    Returns:
        float64 array of shape (rows,), each from 0 to 1.
    """
    return calibrated(margins(bundle, frame, threads), bundle.calibration)


def contributions(bundle: Bundle, frame: pd.DataFrame, threads: int = 1) -> np.ndarray:
    """What each input adds to a row's raw score: SHAP values from XGBoost itself.

    TreeSHAP (Lundberg et al., From local explanations to global understanding with explainable AI
    for trees, 2020). A row's contributions and the base value add up to its raw score.

    Returns:
        float64 array of shape (rows, inputs + 1), in log-odds; the last column is the base value.
    """
    if frame.empty:
        return np.empty((0, len(bundle.inputs) + 1), dtype=np.float64)
    found: np.ndarray = _booster(bundle, threads).predict(
        _matrix(bundle, frame, threads), pred_contribs=True
    )
    return found.astype(np.float64)


def mean_gain(bundle: Bundle) -> dict[str, float]:
    """What a split on each input gains in the training objective, on average over all trees."""
    gain = _booster(bundle, threads=1).get_score(importance_type="gain")
    return {name: round(float(gain.get(name, 0.0)), 6) for name in bundle.inputs}


def learn_vocabulary(
    frame: pd.DataFrame, categorical: Sequence[str]
) -> dict[str, tuple[Category, ...]]:
    """The values of each categorical column, sorted, as the codes of a model to be trained."""
    return {
        name: tuple(value.item() if isinstance(value, np.generic) else value for value in values)
        for name in categorical
        for values in [sorted(frame[name].dropna().unique())]
    }


def encode(
    frame: pd.DataFrame,
    inputs: Sequence[str],
    vocabulary: Mapping[str, Sequence[Category]],
) -> np.ndarray:
    """The matrix that the trees see: amounts as they are, categories as codes.

    Columns are taken by name, so their order and dtype in `frame` do not matter. A category that
    is not in the vocabulary becomes missing (NaN), as XGBoost understands it.

    Returns:
        float32 array of shape (rows, inputs).
    """
    matrix = np.empty((len(frame), len(inputs)), dtype=np.float32)
    for position, name in enumerate(inputs):
        if name in vocabulary:
            codes = pd.Index(vocabulary[name]).get_indexer(pd.Index(frame[name]))
            matrix[:, position] = np.where(codes < 0, np.nan, codes)
        else:
            matrix[:, position] = frame[name].to_numpy(dtype=np.float32, na_value=np.nan)
    return matrix


def count_unseen(
    frame: pd.DataFrame, vocabulary: Mapping[str, Sequence[Category]]
) -> dict[str, int]:
    """How many rows hold a category that the vocabulary lacks, per column that has any."""
    unseen = {
        name: int((~frame[name].isin(values) & frame[name].notna()).sum())
        for name, values in vocabulary.items()
    }
    return {name: count for name, count in unseen.items() if count}


def feature_types(inputs: Sequence[str], vocabulary: Mapping[str, object]) -> list[str]:
    """XGBoost's type of each input: `c` for codes, `q` for quantities."""
    return ["c" if name in vocabulary else "q" for name in inputs]


def _booster(bundle: Bundle, threads: int) -> Any:
    import xgboost as xgb

    booster = xgb.Booster({"nthread": threads})
    booster.load_model(bytearray(bundle.trees))
    return booster


def _matrix(bundle: Bundle, frame: pd.DataFrame, threads: int) -> Any:
    import xgboost as xgb

    return xgb.DMatrix(
        encode(frame, bundle.inputs, bundle.vocabulary),
        feature_names=list(bundle.inputs),
        feature_types=feature_types(bundle.inputs, bundle.vocabulary),
        enable_categorical=True,
        nthread=threads,
    )


@dataclass(frozen=True)
class Served:
    """A bundle as MLflow serves it: raw rows in, probability and decision out."""

    bundle: Bundle

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The probability of each row, and whether it is referred, with the index as given.

        Args:
            rows: Rows as the source delivers them; columns that are no inputs are ignored.

        Raises:
            ValueError: Inputs are missing among the columns, or hold text in place of a number.
        """
        inputs = self.bundle.inputs
        if missing := [name for name in inputs if name not in rows.columns]:
            raise ValueError(f"the rows lack columns that the model needs: {', '.join(missing)}")
        texts = {
            name
            for name, values in self.bundle.vocabulary.items()
            if not values or any(isinstance(value, str) for value in values)
        }
        read = {name: rows[name] if name in texts else _numbers(rows[name]) for name in inputs}
        probability = predict(self.bundle, pd.DataFrame(read, index=rows.index))
        refer = probability >= self.bundle.threshold
        return pd.DataFrame({"probability": probability, "refer": refer}, index=rows.index)


def _numbers(values: pd.Series) -> pd.Series:
    """Values as numbers, as the contract of raw rows reads them: some sources deliver text."""
    if not pd.api.types.is_numeric_dtype(values.dtype):
        values = values.astype(object)
    numbers: pd.Series = pd.to_numeric(values, errors="coerce")
    if (unreadable := values[numbers.isna() & values.notna()]).size:
        raise ValueError(
            f"{values.name} holds {unreadable.iloc[0]!r} in row {unreadable.index[0]}, which is "
            f"not a number ({len(unreadable)} such rows)"
        )
    return numbers


def _load_pyfunc(path: str) -> Served:
    """What `mlflow.pyfunc.load_model` calls, with the folder of the two files."""
    folder = Path(path)
    files = [file for file in (folder / MODEL_FILE, folder / BUNDLE_FILE) if file.is_file()]
    return Served(Bundle.from_files({file.name: file.read_bytes() for file in files}))
