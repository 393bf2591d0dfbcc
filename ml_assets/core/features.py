"""The names that we give to data: hashes of rows and of whole frames."""

import hashlib
from collections.abc import Sequence

import pandas as pd


def row_hashes(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """A 16-digit hexadecimal hash per row over the values of `columns`, in that order.

    Two rows share a hash when their values are the same, whatever else is in the frame: pandas'
    own `hash_pandas_object`, which does not depend on the process or the machine.
    """
    hashes = pd.util.hash_pandas_object(frame[list(columns)], index=False)
    return pd.Series([f"{value:016x}" for value in hashes], index=frame.index, dtype=object)


def content_hash(frame: pd.DataFrame, columns: Sequence[str]) -> str:
    """SHA-256 over the rows' values in the order given; names the content of a frame."""
    hashes = pd.util.hash_pandas_object(frame[list(columns)], index=False)
    digest = hashlib.sha256("\n".join(columns).encode())
    digest.update(hashes.to_numpy().astype("<u8").tobytes())
    return digest.hexdigest()
