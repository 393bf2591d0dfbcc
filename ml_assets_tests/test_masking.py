"""Masks: no password, no secret and no value of a row gets through, and the rest does."""

import pytest

from ml_assets.masking import (
    fit,
    fit_error,
    secret_values,
    secrets_of_url,
    without_login,
    without_secrets,
    without_values,
)
from ml_assets.resources.csv_text import clip

ENVIRON = {
    "PGPASSWORD": "s3cr3t word",
    "ML_ASSETS_WAREHOUSE_URL": "postgresql://ml:p%40ss/word@host/db",
    "ML_ASSETS_ALERT_URLS": "slack://tokenA/tokenB/tokenC, mailto://ops:hunter22@example.org",
    "AWS_SECRET_ACCESS_KEY": "abcdEFGH",
    "ML_ASSETS_HEARTBEAT_URL": "https://watch.example.org/ping/0a1b",
    "DB_PWD": "hunter33",
    "PWD": "/work",
    "HOME": "/root",
    "API_TOKEN": "xy",
}


def test_secrets_are_found_in_named_variables_and_in_urls_also_percent_decoded() -> None:
    found = secret_values(ENVIRON)

    assert {"s3cr3t word", "p%40ss/word", "p@ss/word", "hunter22", "abcdEFGH"} <= set(found)
    assert {"https://watch.example.org/ping/0a1b", "hunter33"} <= set(found)
    assert not {"/root", "/work"} & set(found)
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
        ("Authorization: Bearer eyJhbGciOi.x-y", "Authorization: Bearer ***"),
        ("{'Authorization': 'Basic bWw6cGE1NQ=='}", "{'Authorization': 'Basic ***'}"),
        ("refused bearer eyJhbGciOiJIUzI1NiJ9.e30", "refused bearer ***"),
        ("Bearer authentication is wanted", "Bearer authentication is wanted"),
        ("GET https://a.net/b?sv=1&sig=aB%2Fc= failed", "GET https://a.net/b?sv=1&sig=*** failed"),
        (
            "https://s3/b?X-Amz-Credential=AK%2F1&X-Amz-Signature=ab12&X-Amz-Date=2",
            "https://s3/b?X-Amz-Credential=***&X-Amz-Signature=***&X-Amz-Date=2",
        ),
        ("?design=plain&page=2", "?design=plain&page=2"),
        ("AWS_SECRET_ACCESS_KEY=ab/cd+ef", "AWS_SECRET_ACCESS_KEY=***"),
        ("secretAccessKey: ab/cd+ef", "secretAccessKey: ***"),
        ("access_key_id=AKIA123 region=north", "access_key_id=*** region=north"),
        ("AccountKey=ab==;EndpointSuffix=x", "AccountKey=***;EndpointSuffix=x"),
        ("private_key: abcdef", "private_key: ***"),
        ('{"private_key": "-----BEGIN PRIVATE KEY-----\\nMI ab"}', '{"private_key": "***"}'),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIab\ncd\n-----END RSA PRIVATE KEY-----\nnext",
            "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----\nnext",
        ),
        ("UID=ml;PWD=hunter2;HOST=x", "UID=ml;PWD=***;HOST=x"),
        ("pwd=hunter2", "pwd=***"),
        ('password: "two words" user: ml', 'password: "***" user: ml'),
        ("{'password': 'two \\'quoted\\' words', 'x': 1}", "{'password': '***', 'x': 1}"),
        ('password: "cut off', 'password: "***'),
        ("password: ''", "password: ''"),
        ("primary_key: application_id, keys: 2", "primary_key: application_id, keys: 2"),
        (
            "POST https://hooks.slack.com/services/T000/B000/XXXX failed",
            "POST https://hooks.slack.com/services/*** failed",
        ),
        (
            "hooks.slack.com:443: url: /services/T0/B0/XX (",
            "hooks.slack.com:443: url: /services/*** (",
        ),
        (
            "https://x.webhook.office.com/webhookb2/1@2/a",
            "https://x.webhook.office.com/webhookb2/***",
        ),
        ("https://discord.com/api/webhooks/1/ab", "https://discord.com/api/webhooks/***"),
        ("https://hc-ping.com/0a-1b/fail", "https://hc-ping.com/***"),
        ("GET http://host/services/list", "GET http://host/services/list"),
        ("postgresql://ml@server:pa55@host/db", "postgresql://ml@server:***@host/db"),
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


@pytest.mark.parametrize("value", ["Ann Smith", "O'Hara", 'Ann "A" Smith', "long" * 40])
def test_what_is_quoted_of_a_line_of_a_file_goes_also_where_it_was_clipped(value: str) -> None:
    for told in (
        f"line 2, column 'age': the quote is never closed: {clip(value)}. The file is cut off.",
        f"line 2: 3 fields where the header has 2; the last is column 'a' = {clip(value)}.",
        f"line 1: {clip(value)} is no JSON object. Every line must be one.",
    ):
        for ours in (True, False):
            shown = without_values(told, ours=ours)
            assert value[:8] not in shown
            assert shown.startswith(told[:6])
    assert "column 'age'" in without_values("line 2, column 'age': it holds 'x'")
    assert without_values("age = 'Ann Smi…; at most 5 may") == "age = …; at most 5 may"


def test_a_librarys_sentence_loses_every_quotation() -> None:
    told = without_values("could not convert string to float: 'Ann' at \"x\"", ours=False)

    assert told == "could not convert string to float: … at …"


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "DETAIL:  Key (application_id)=(A-12345) already exists.",
            "DETAIL:  Key (application_id)=(…) already exists.",
        ),
        ("Key (a, b)=(x (y), Anna) is there", "Key (a, b)=(…) is there"),
        ("Key (a)=(x\nAnna (M)) is there", "Key (a)=(…) is there"),
        ("Failing row contains (A-12345, Anna Müller, 45).", "Failing row contains (…)."),
        ("Failing row contains (A-12345, Anna Mü", "Failing row contains (…"),
        (
            "[SQL: INSERT INTO t VALUES (%s)]\n[parameters: ('A-123', 'Anna [M]')]\n(Background)",
            "[SQL: INSERT INTO t VALUES (%s)]\n[parameters: …]\n(Background)",
        ),
        ("KeyError: 'Anna Müller'", "KeyError: …"),
        ('time data "Anna Müller" doesn\'t match', "time data … doesn't match"),
        ("unable to parse: Anna Müller, at position 3", "unable to parse: …"),
    ],
)
def test_what_libraries_quote_of_rows_goes_whoever_tells_it(
    text: str, expected: str, ours: bool
) -> None:
    assert without_values(text, ours=ours) == expected


def test_an_apostrophe_within_a_word_hides_no_quotation_from_the_mask() -> None:
    told = without_values("it can't read 'Anna' nor b'Bob' nor 'O'Hara'; it's odd", ours=False)

    assert told == "it can't read … nor … nor …; it's odd"


def test_what_is_fit_to_be_told_obeys_no_terminal() -> None:
    assert fit("age holds 'Ann'\x1b[2J\nnext") == "age holds …\\u001b[2J\nnext"


TOLD = """Traceback (most recent call last):
  File "/app/ml_assets/x.py", line 12, in read
    row = rows["Status"]
          ~~~~^^^^^^^^^^
KeyError: 'Anna Müller'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/app/ml_assets/y.py", line 3, in check
ml_assets.core.contract.ContractError: no column 'age'.
Rename 'Age'; for example age = '431'
Stack Trace:
  File "/app/z.py", line 9, in other
    fail()
pandas.errors.ParserError: cannot take 'Anna'
    nor 'Bob'"""


def test_an_error_keeps_its_frames_and_our_own_words() -> None:
    told = fit_error(TOLD)

    assert "Anna" not in told
    assert "Bob" not in told
    assert "431" not in told
    for kept in (
        '  File "/app/ml_assets/x.py", line 12, in read\n    row = rows["Status"]\n',
        "KeyError: …\n",
        "ml_assets.core.contract.ContractError: no column 'age'.\nRename 'Age'\nStack Trace:",
        '  File "/app/z.py", line 9, in other\n    fail()\n',
        "pandas.errors.ParserError: cannot take …\n    nor …",
    ):
        assert kept in told


def test_of_a_webhook_everything_but_its_host_may_be_secret() -> None:
    url = "jsons://ops:hunt@hooks.example.com/services/T000/S3CR%20T?+X-Auth=abcdef"
    told = "hooks.example.com:443 refuses /services/T000/S3CR%20T?+X-Auth=abcdef, S3CR T, hunt"

    shown = without_secrets(told, secrets_of_url(url))
    assert shown == "hooks.example.com:443 refuses ***, ***, ***"
    assert "tokenA" in secrets_of_url("slack://tokenA/tokenB/tokenC")


def test_a_url_without_its_login_keeps_the_rest() -> None:
    assert without_login("https://me:a@b/c@host:1/x") == "https://host:1/x"
    assert without_login("https://host:1/x") == "https://host:1/x"
