"""Masks: no password, no secret and no value of a row gets through, and the rest does."""

import pytest

from ml_assets.masking import secret_values, without_secrets, without_values

ENVIRON = {
    "PGPASSWORD": "s3cr3t word",
    "ML_ASSETS_WAREHOUSE_URL": "postgresql://ml:p%40ss/word@host/db",
    "ML_ASSETS_ALERT_URLS": "slack://tokenA/tokenB/tokenC, mailto://ops:hunter22@example.org",
    "AWS_SECRET_ACCESS_KEY": "abcdEFGH",
    "HOME": "/root",
    "API_TOKEN": "xy",
}


def test_secrets_are_found_in_named_variables_and_in_urls_also_percent_decoded() -> None:
    found = secret_values(ENVIRON)

    assert {"s3cr3t word", "p%40ss/word", "p@ss/word", "hunter22", "abcdEFGH"} <= set(found)
    assert "/root" not in found
    assert "xy" not in found, "too short to blot out"
    assert list(found) == sorted(found, key=len, reverse=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot reach postgresql://ml:p%40ss@host/db", "cannot reach postgresql://ml:***@host/db"),
        ("see http://host:3000/runs/1 and ask a@b.c", "see http://host:3000/runs/1 and ask a@b.c"),
        ("user=ml password=pa55 host=x", "user=ml password=*** host=x"),
        ("he said s3cr3t word twice", "he said *** twice"),
        ("POST slack://tokenA/tokenB/tokenC failed", "POST *** failed"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_a_text_loses_its_secrets_and_nothing_else(text: str, expected: str) -> None:
    assert without_secrets(text, secret_values(ENVIRON)) == expected


def test_our_own_sentences_lose_the_example_and_keep_the_columns() -> None:
    sentence = (
        "2026-01-05: 30.0% of the rows break the contract (9 x out_of_range in age; for example "
        "age = '431'); at most 5.0% may (contract.max_bad_share)"
    )

    assert without_values(sentence) == (
        "2026-01-05: 30.0% of the rows break the contract (9 x out_of_range in age); at most 5.0% "
        "may (contract.max_bad_share)"
    )
    assert without_values("no column 'age'. Rename it.") == "no column 'age'. Rename it."
    assert without_values("age holds 'Ann Smith' in row 3") == "age holds … in row 3"
    assert without_values("could not convert string to float: 'Ann'").endswith("float: …")
    assert without_values("Description: 'raw' is late") == "Description: 'raw' is late"
    assert "Ann" not in without_values("error: Column 'n' failed; failure cases: Ann, Bob")


def test_a_librarys_sentence_loses_every_quotation() -> None:
    told = without_values("could not convert string to float: 'Ann' at \"x\"", ours=False)

    assert told == "could not convert string to float: … at …"
