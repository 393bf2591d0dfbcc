"""Between pandas and Arrow, with types that do not depend on the rows at hand.

A text column without any value, or a frame without rows, must keep its type on the way to a table.
"""

from typing import Any

import pandas as pd
import pyarrow as pa

INSTANT = pa.timestamp("us", tz="UTC")
_NULLABLE = {pa.int8(): pd.Int8Dtype()}


def to_arrow(frame: pd.DataFrame) -> pa.Table:
    """Turn a frame into an Arrow table; object columns are text, instants are UTC microseconds."""
    fields = [
        pa.field(str(name), _arrow_type(dtype)) for name, dtype in frame.dtypes.to_dict().items()
    ]
    return pa.Table.from_pandas(frame, schema=pa.schema(fields), preserve_index=False)


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Turn an Arrow table into a frame.

    Text becomes object, 8-bit integers become pandas' nullable `Int8` (flags that may be missing),
    as do other integers that have a missing value (`Int64`).
    """
    fields = [
        pa.field(field.name, pa.string() if _is_text(field.type) else field.type)
        for field in table.schema
    ]
    frame = table.cast(pa.schema(fields)).to_pandas(
        types_mapper=_NULLABLE.get, integer_object_nulls=True
    )
    for field in table.schema:
        if pa.types.is_integer(field.type) and frame[field.name].dtype == object:
            frame[field.name] = frame[field.name].astype("Int64")
    return frame


def _arrow_type(dtype: Any) -> pa.DataType:
    if pd.api.types.is_object_dtype(dtype) or isinstance(dtype, pd.StringDtype):
        return pa.string()
    if isinstance(dtype, pd.DatetimeTZDtype):
        return INSTANT
    if isinstance(dtype, pd.api.extensions.ExtensionDtype):
        return pa.from_numpy_dtype(dtype.numpy_dtype)
    return pa.from_numpy_dtype(dtype)


def _is_text(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(dtype) or pa.types.is_large_string(dtype))
