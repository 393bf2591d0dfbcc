"""The monitoring page: what stands first, what it says of nothing, and that it loads nothing."""

import re
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from ml_assets.report.monitoring import Page, monitoring_page
from ml_assets_tests.report.test_card import Outline

DAY = "2026-03-02"
HOSTILE = '<script>alert(1)</script>\u202e"&\x1b[31m'
SECTIONS = ["red", "inputs", "outputs", "volume", "outcomes", "weeks", "estimate", "method"]


def row(
    section: str, subject: str, measure: str, value: float | None, **more: Any
) -> dict[str, Any]:
    found = {
        "day": DAY,
        "section": section,
        "subject": subject,
        "measure": measure,
        "value": value,
        "low": None,
        "high": None,
        "rows": 1_000,
        "state": None,
        "since": None,
        "sentence": None,
    }
    return {**found, **more}


def figures(section: str, subject: str, state: str) -> list[dict[str, Any]]:
    return [
        row(section, subject, "roc_auc", 0.91, low=0.9, high=0.92, state=state, sentence="So so."),
        row(section, subject, "roc_auc_promised", 0.94, low=0.93, high=0.95),
        row(section, subject, "roc_auc_estimated", 0.93, low=0.92, high=0.94),
        row(section, subject, "positives", 160.0, low=140.0, high=180.0),
        row(section, subject, "positives_expected", 159.4, low=140.0, high=180.0),
    ]


def page(rows: list[dict[str, Any]], **more: Any) -> str:
    told = {
        "use_case": "claims",
        "description": "Likelihood that an application leads to a claim",
        "owners": ("team:data-science",),
        "day": DAY,
        "maturity_days": 45,
        "remedies": {"inputs": "Ask the source, by `ask --now <who>`.", "outcomes": "Train."},
        **more,
    }
    return monitoring_page(Page(rows=pd.DataFrame(rows), **told))


def busy() -> str:
    since = {"since": "2026-02-26"}
    return page(
        [
            row("inputs", "age", "psi", 1.2, state="drift", sentence="age: moved", **since),
            row("inputs", HOSTILE, "psi", 0.2, state="watch", sentence=HOSTILE, since=DAY),
            row("inputs", "income", "psi", 0.01, state="ok", sentence="income: as when trained"),
            row("inputs", "bmi", "psi", None, state="too few rows", sentence="bmi: 3 rows"),
            row("outputs", "probability", "psi", 0.02, state="ok", sentence="fine"),
            row("outputs", "probability", "mean", 0.16),
            row("outputs", "probability", "expected_positives", 160.0, low=140.0, high=180.0),
            row("outputs", "probability", "referred_share", 0.22, low=0.2, high=0.25),
            row("outputs", "probability", "model_version", 3.0),
            row(
                "volume",
                "applications",
                "rows",
                1000.0,
                low=800.0,
                high=1300.0,
                state="ok",
                sentence="1,000 rows",
            ),
            *figures("outcomes", "champion 3", "worse"),
            *figures("outcomes", "challenger 4", "ok"),
            row("weeks", "2026-01-05", "expected", 100.0, low=80.0, high=120.0),
            row(
                "weeks",
                "2026-01-05",
                "actual",
                130.0,
                state="watch",
                sentence="130 came",
                since=DAY,
            ),
            *figures("estimate", "champion 3", "ok"),
        ]
    )


def quiet() -> str:
    """The first day of all, on which nothing can be looked at."""
    none = {"rows": 0, "state": "no model", "sentence": "No model serves yet."}
    return page(
        [
            row("inputs", "all", "rows", 0.0, **none),
            row("outputs", "all", "rows", 0.0, **none),
            row("volume", "applications", "rows", None, state="unknown", sentence="Never read."),
            row("outcomes", "all", "rows", 0.0, state="not matured", sentence="Not final."),
            row("estimate", "all", "rows", 0.0, state="no rows", sentence="None was scored."),
        ]
    )


@pytest.fixture(scope="module", params=[busy, quiet], ids=["busy", "quiet"])
def shown(request: pytest.FixtureRequest) -> str:
    made: str = request.param()
    return made


def text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.split("<main")[1]))


def test_what_is_red_stands_first_with_since_when_and_what_to_do() -> None:
    found = busy()

    first = text(found)
    assert first.index("What is red") < first.index("Inputs: age, since 2026-02-26")
    assert first.index("age: moved") < first.index("What to do") < first.index("To watch")
    assert "Ask the source, by <code>ask --now &lt;who&gt;</code>." in found
    assert "2 findings are red, in inputs and outcomes; the oldest since 2026-02-26." in found
    # Where a section has no trouble its remedy would only distract.
    assert "roll back" not in first


def test_on_a_quiet_day_it_says_so_and_what_was_not_judged() -> None:
    found = quiet()

    assert "Nothing is red." in found
    told = text(found)
    assert "Not judged" in told
    assert "No model serves yet." in told
    assert "Not final." in told
    assert "No whole week" in told


def test_estimate_and_realised_stand_side_by_side() -> None:
    html = busy().split('<section id="outcomes"')[1].split("</section>")[0]

    told = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    assert "Realised Estimated before Promised" in told
    assert re.search("0.910 0.900 to 0.920 0.930 0.920 to 0.940 0.940 0.930 to 0.950", told)
    assert "1 challenger, on which nobody acts" in told
    assert "160 claims came; 159.4 were expected, and chance allows 140 to 180." in told


def test_texts_from_the_data_are_escaped_and_nothing_hidden_stays() -> None:
    found = busy()

    assert "<script" not in found
    assert "&lt;script&gt;" in found
    assert not {"\u202e", "\x1b"} & set(found)


def test_every_section_has_its_heading_and_a_link(shown: str) -> None:
    outline = Outline(shown)

    assert [section["id"] for section in outline.all("section")] == SECTIONS
    headings = {heading.get("id") for heading in outline.all("h2")}
    assert all(section["aria-labelledby"] in headings for section in outline.all("section"))
    assert {f"#{name}" for name in (*SECTIONS, "main")} <= {
        link["href"] for link in outline.all("a")
    }
    assert len(outline.all("h1")) == len(outline.all("main")) == 1


def test_nothing_is_loaded_from_outside(shown: str) -> None:
    outline = Outline(shown)

    assert not outline.all("script", "link", "img", "iframe", "object", "embed", "base", "form")
    assert "http" not in shown
    assert "url(" not in shown
    assert "@import" not in shown


def test_graphics_are_well_formed_and_tables_have_headers(shown: str) -> None:
    for graphic in re.findall(r"<svg.*?</svg>", shown, re.DOTALL):
        root = ElementTree.fromstring(graphic)
        named = root.findtext("title") and root.findtext("desc")
        assert named if root.get("role") == "img" else root.get("aria-hidden") == "true"
        assert not [
            each for each in root.iter() if "nan" in " ".join(map(str, each.attrib.values()))
        ]
    assert all(header.get("scope") for header in Outline(shown).all("th"))
    ids = re.findall(r'\sid="([^"]*)"', shown)
    assert len(ids) == len(set(ids))


def test_the_same_rows_give_the_same_bytes() -> None:
    assert busy() == busy()
    assert len(busy()) < 200_000
