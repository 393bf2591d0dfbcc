import pandas as pd
import pyarrow as pa
import pytest

from ml_assets.resources.arrow import INSTANT, to_arrow, to_pandas


def full() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "text": pd.Series(["a", "é", None], dtype=object),
            "flag": pd.Series([1, 0, None], dtype="Int8"),
            "count": pd.Series([1, -2, 2**60], dtype="int64"),
            "amount": pd.Series([0.1, None, -3.0], dtype="float64"),
            "at": pd.to_datetime(
                ["2026-03-29T00:59:59.123456Z", None, "1969-12-31T23:59:59Z"], format="ISO8601"
            ).astype("datetime64[us, UTC]"),
        }
    )


def there_and_back(frame: pd.DataFrame) -> pd.DataFrame:
    return to_pandas(to_arrow(frame))


def test_a_frame_survives_the_round_trip() -> None:
    pd.testing.assert_frame_equal(there_and_back(full()), full())


def test_an_empty_frame_keeps_its_types() -> None:
    pd.testing.assert_frame_equal(there_and_back(full().iloc[:0]), full().iloc[:0])


def test_columns_without_any_value_keep_their_types() -> None:
    nothing = full().drop(columns="count").iloc[:0].reindex([0, 1])
    nothing["text"] = pd.Series([None, None], dtype=object)

    back = there_and_back(nothing)

    pd.testing.assert_frame_equal(back, nothing)
    assert back.isna().all(axis=None)


@pytest.mark.parametrize("rows", [0, 3])
def test_the_arrow_types_do_not_depend_on_the_rows(rows: int) -> None:
    expected = {
        "text": pa.string(),
        "flag": pa.int8(),
        "count": pa.int64(),
        "amount": pa.float64(),
        "at": INSTANT,
    }

    schema = to_arrow(full().iloc[:rows]).schema

    assert {field.name: field.type for field in schema} == expected


@pytest.mark.parametrize("dtype", ["datetime64[ns, UTC]", "datetime64[us, Europe/London]"])
def test_instants_become_utc_microseconds(dtype: str) -> None:
    local = pd.DataFrame({"at": full()["at"].astype(dtype)})

    back = there_and_back(local)["at"]

    assert back.dtype == "datetime64[us, UTC]"
    assert back.equals(full()["at"])


def test_string_dtype_is_text_as_object_is() -> None:
    table = to_arrow(full()[["text"]].astype("string"))

    assert table.schema.field("text").type == pa.string()
    pd.testing.assert_frame_equal(to_pandas(table), full()[["text"]])


@pytest.mark.parametrize("type_", [pa.string_view(), pa.large_string()])
def test_every_kind_of_arrow_text_becomes_object(type_: pa.DataType) -> None:
    table = pa.table({"text": pa.array(["a", None], type_)})

    pd.testing.assert_frame_equal(
        to_pandas(table), pd.DataFrame({"text": pd.Series(["a", None], dtype=object)})
    )


def test_whole_numbers_with_a_missing_value_stay_whole() -> None:
    frame = pd.DataFrame({"version": pd.Series([2**60 + 1, None], dtype="Int64")})

    pd.testing.assert_frame_equal(there_and_back(frame), frame)


def test_the_index_is_not_stored() -> None:
    shuffled = full().iloc[::-1]

    assert to_arrow(shuffled).column_names == list(full())
    assert list(there_and_back(shuffled).index) == [0, 1, 2]


def test_a_value_that_is_no_text_in_a_text_column_is_refused() -> None:
    with pytest.raises(pa.ArrowException):
        to_arrow(pd.DataFrame({"text": pd.Series(["a", 1], dtype=object)}))
