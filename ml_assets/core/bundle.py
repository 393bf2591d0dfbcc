"""A trained model as two plain files, `model.ubj` and `bundle.json`; never a pickle.

The bundle holds everything that scoring needs: the trees, the inputs in order, and the vocabulary
that turns each category into the code the trees were grown on. Fitting is in
`ml_assets.core.training`, using it in `ml_assets.core.scoring`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
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
        facts: How the model came to be, as plain JSON values: seed, parameters, manifest, metrics.
    """

    trees: bytes
    inputs: tuple[str, ...]
    vocabulary: Mapping[str, tuple[Category, ...]]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """The hash that names this bundle: over `bundle.json`, which holds that of the trees."""
        return hashlib.sha256(self.to_files()[BUNDLE_FILE]).hexdigest()

    def to_files(self) -> dict[str, bytes]:
        """The content of each file of the bundle; the same bundle gives the same bytes."""
        content = {
            "format": 1,
            "inputs": self.inputs,
            "vocabulary": self.vocabulary,
            "facts": self.facts,
            "trees_sha256": hashlib.sha256(self.trees).hexdigest(),
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
            inputs, facts = tuple(content["inputs"]), content["facts"]
            vocabulary = {name: tuple(values) for name, values in content["vocabulary"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptBundle(f"{BUNDLE_FILE} cannot be read: {error!r}") from error
        found = hashlib.sha256(files[MODEL_FILE]).hexdigest()
        if found != expected:
            raise CorruptBundle(f"{MODEL_FILE} has SHA-256 {found}, expected {expected}")
        return cls(trees=files[MODEL_FILE], inputs=inputs, vocabulary=vocabulary, facts=facts)


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
