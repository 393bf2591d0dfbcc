"""The model card: what it shows, what it refuses to load, and how it copes with odd input."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from ml_assets.core.evaluation import (
    Bin,
    CalibrationReport,
    CostReport,
    Decile,
    Estimate,
    Evaluation,
    Importance,
    Part,
    Slice,
)
from ml_assets.report.card import (
    Approval,
    Card,
    Decision,
    Disagreement,
    Guardrail,
    Manifest,
    Period,
    drift_told,
    is_small,
    model_card,
    surprise,
    verdict,
)

NONE = Estimate(value=None, low=None, high=None)
SECTIONS = [
    "purpose",
    "data",
    "quality",
    "calibration",
    "costs",
    "slices",
    "drift",
    "importance",
    "shadow",
    "approval",
    "limits",
    "reproduce",
]
VOID = {"meta", "link", "br", "hr", "img", "input", "circle", "line", "rect", "polyline", "polygon"}


def about(value: float, half: float) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def wilson(positives: int, rows: int) -> Estimate:
    share, z = positives / rows, 1.96
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * np.sqrt(share * (1 - share) / rows + z * z / (4 * rows**2))
    return Estimate(value=share, low=max(0.0, middle - half), high=min(1.0, middle + half))


def sample_rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, bolder ones, and outcomes of 4,712 imagined applications."""
    generator = np.random.Generator(np.random.PCG64(7))
    log_odds = generator.normal(-2.9, 2.1, 4_712)
    outcome = (generator.random(4_712) < 1 / (1 + np.exp(-log_odds))).astype(int)
    return 1 / (1 + np.exp(-log_odds)), 1 / (1 + np.exp(-1.5 * log_odds - 0.4)), outcome


def bins(probability: np.ndarray, outcome: np.ndarray) -> tuple[Bin, ...]:
    found = []
    for part in np.array_split(np.argsort(probability), 10):
        found.append(
            Bin(
                rows=len(part),
                promised=float(probability[part].mean()),
                realised=wilson(int(outcome[part].sum()), len(part)),
            )
        )
    return tuple(found)


def part(rows: int, positives: int, shift: float, half: float) -> Part:
    metrics = {
        "roc_auc": about(0.908 + shift, half),
        "pr_auc": about(0.689 + 2 * shift, 3 * half),
        "log_loss": about(0.2684 - shift, half),
        "brier": about(0.0812 - shift / 2, half / 2),
        "calibration_error": about(0.0121, 0.004),
        "calibration_slope": about(0.984 + shift, 7 * half),
        "calibration_intercept": about(-0.021, 10 * half),
        "accuracy": about(0.834 + shift, half),
        "f1": about(0.597 + shift, 2 * half),
        "precision": about(0.487 + shift, 2 * half),
        "recall": about(0.858 + shift, 2 * half),
        "kappa": about(0.508 + shift, 2 * half),
    }
    return Part(rows=rows, positives=positives, metrics=metrics, confusion=(3_360, 617, 105, 630))


def group(column: str, value: str, rows: int, positives: int, expected: float) -> Slice:
    width = 1.1 / np.sqrt(max(rows, 1))
    return Slice(
        column=column,
        value=value,
        rows=rows,
        positives=positives,
        expected=expected,
        log_loss=about(0.268 + 0.3 * (positives / rows - 0.156), 0.9 * width),
        roc_auc=about(min(0.908 + 0.02 * np.sin(rows), 0.97), min(width, 0.2)),
    )


def sample_evaluation() -> Evaluation:
    right, bold, outcome = sample_rows()
    order = np.argsort(-right)
    sorted_outcome = outcome[order]
    hits = np.cumsum(sorted_outcome) / outcome.sum()
    alarms = np.cumsum(1 - sorted_outcome) / (1 - outcome).sum()
    precision = np.cumsum(sorted_outcome) / np.arange(1, len(order) + 1)
    picked = np.unique(np.linspace(30, len(order) - 1, 190).astype(int))
    deciles = []
    for number, part_rows in enumerate(np.array_split(order, 10), start=1):
        positives = int(outcome[part_rows].sum())
        interval = wilson(positives, len(part_rows))
        base = outcome.mean()
        deciles.append(
            Decile(
                decile=number,
                rows=len(part_rows),
                positives=positives,
                lift=Estimate(
                    value=interval.value / base, low=interval.low / base, high=interval.high / base
                ),
            )
        )
    thresholds = np.linspace(0, 1, 101)
    curve = tuple(
        (
            float(t),
            float(
                (8 * ((right < t) & (outcome == 1)) + 1 * ((right >= t) & (outcome == 0))).mean()
            ),
        )
        for t in thresholds
    )
    gains = 40 * 0.82 ** np.arange(37)
    names = [
        "credit_score_3",
        "financial_hist_2",
        "insurance_hist_4",
        "previous_claim_rate",
        "income",
        "age",
        "bmi",
        "driving_record",
        "financial_hist_1",
        "health_status",
        "location",
        "occupation",
        "insurance_hist_1",
        "gender",
        "marital_status",
        "n_dependents",
        "education_level",
        "height_cm",
        "weight_kg",
        "product_var_3",
    ]
    return Evaluation(
        parts={"train": part(171_204, 27_061, 0.021, 0.002), "holdout": part(4_712, 735, 0, 0.012)},
        calibration=CalibrationReport(
            method="platt",
            cross_validated_log_loss={
                "none": 0.2768,
                "platt": 0.2691,
                "beta": 0.2693,
                "isotonic": 0.2731,
            },
            before={
                "log_loss": about(0.2761, 0.014),
                "brier": about(0.0841, 0.006),
                "calibration_error": about(0.0388, 0.007),
                "calibration_slope": about(0.671, 0.05),
                "calibration_intercept": about(-0.262, 0.13),
            },
            after={
                "log_loss": about(0.2684, 0.012),
                "brier": about(0.0812, 0.006),
                "calibration_error": about(0.0121, 0.004),
                "calibration_slope": about(0.984, 0.084),
                "calibration_intercept": about(-0.021, 0.12),
            },
            reliability_before=bins(bold, outcome),
            reliability_after=bins(right, outcome),
        ),
        costs=CostReport(
            missed_claim=8,
            needless_referral=1,
            threshold=0.124,
            theoretical_threshold=1 / 9,
            curve=curve,
            holdout=about(0.309, 0.031),
            refer_none=1.248,
            refer_all=0.844,
        ),
        slices=(
            group("gender", "0", 2_401, 362, 371.2),
            group("gender", "1", 2_311, 373, 361.9),
            group("age", "18–29", 811, 139, 131.0),
            group("age", "30–44", 1_392, 227, 219.4),
            group("age", "45–59", 1_403, 208, 214.7),
            group("age", "60–74", 922, 136, 140.8),
            group("age", "75 and over", 184, 25, 27.2),
            group("location", "A", 190, 31, 29.1),
            group("location", "K", 1_204, 241, 188.0),
            group("location", "Z", 41, 4, 6.6),
            group("uk_residence", "0", 622, 101, 98.0),
            group("uk_residence", "1", 4_090, 634, 635.1),
        ),
        lift=tuple(deciles),
        roc=((0.0, 0.0), *((float(alarms[i]), float(hits[i])) for i in picked)),
        precision_recall=tuple((float(hits[i]), float(precision[i])) for i in picked),
        importance=tuple(
            Importance(feature=name, gain=float(gain), contribution=float(0.9 * 0.84**index))
            for index, (name, gain) in enumerate(zip(names, gains, strict=False))
        ),
        expected_positives=Estimate(value=733.1, low=687, high=779),
        actual_positives=735,
    )


def sample_card() -> Card:
    return Card(
        use_case="claims",
        description="Likelihood that an application leads to a claim",
        purpose=(
            "It tells an underwriter how likely an application is to lead to a claim, so that "
            "those above a threshold are looked at by a person. It does not price or refuse."
        ),
        limits=(
            "Trained on one insurer’s applications; it says nothing of other products.",
            "An outcome counts after 45 days. Claims that come later are taken for none.",
            "It learns from applications that were accepted; those refused have no outcome.",
            "Gender and location are inputs. Whether they may be used is a legal question that "
            "these figures do not answer.",
        ),
        owners=("team:data-science",),
        version=12,
        status="champion",
        as_of="2026-03-14",
        bundle_sha256="9f2c7e51b0a84d3c6e1f5a9807b2d4c3e6f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7",
        trees_sha256="41d0c9b8a7f6e5d4c3b2a1908f7e6d5c4b3a29181706f5e4d3c2b1a09f8e7d6c",
        code_version="3f9a1c27",
        lock_sha256="c0ffee1234567890abcdef1234567890abcdef1234567890abcdef1234567890",
        seed=20260301,
        manifest=Manifest(
            table_version=412,
            first_day="2025-08-01",
            last_day="2026-01-27",
            rows=184_963,
            positives=29_205,
            rows_unlabelled=318,
            content_hash="7d1b2a3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8",
        ),
        split={
            "train": Period("2025-08-01", "2026-01-16", 171_204),
            "validation": Period("2026-01-17", "2026-01-19", 3_116),
            "calibration": Period("2026-01-20", "2026-01-23", 5_931),
            "holdout": Period("2026-01-24", "2026-01-27", 4_712),
        },
        hyperparameters={
            "learning_rate": 0.0731245,
            "max_depth": 5,
            "min_child_weight": 6.0,
            "subsample": 0.85,
            "colsample_bytree": 0.7,
            "reg_lambda": 2.5,
            "max_bin": 256,
            "tree_method": "hist",
        },
        hyperparameters_from=(
            "Tuned on 2026-03-08: 60 trials on the validation days; log loss 0.2712 instead of "
            "0.2745 with the configuration’s values."
        ),
        rounds=214,
        evaluation=sample_evaluation(),
        decision=Decision(
            rule="superior",
            reason=(
                "challenger version 12 is promoted as superior: log loss difference −0.0041 "
                "[−0.0066, −0.0017] on 4,712 rows"
            ),
            guardrails=(
                Guardrail("calibration", True, "expected 733 claims, 735 came"),
                Guardrail("slices", True, "no group of 200 rows or more is surely worse by 0.02"),
                Guardrail("cost", True, "0.309 per application, champion 0.327"),
            ),
        ),
        duplicates={"credit_score_1": "credit_score_3", "insurance_hist_5": "insurance_hist_4"},
        dropped={"family_history_3": "81 % missing", "employment_type": "71 % missing"},
        previous_version=11,
        drift=(
            *(
                (one.feature, round(0.02 * 0.8**index, 4))
                for index, one in enumerate(sample_evaluation().importance[1:])
                if one.feature != "income"
            ),
            ("income", 0.143),
            ("credit_score_3", 0.318),
        ),
        approvals=(
            Approval("2026-03-14", "challenger", "the model asset", "Registered after training."),
            Approval(
                "2026-03-15",
                "promoted",
                "the gate",
                "Superior to version 11: log loss difference −0.0041 [−0.0066, −0.0017].",
                served_from="2026-03-15",
                served_to="2026-03-17",
            ),
            Approval(
                "2026-03-18",
                "rolled back",
                "m.okafor",
                "Version 11 was restored while the drift of credit_score_3 was looked into.",
            ),
            Approval(
                "2026-03-19",
                "promoted by hand",
                "m.okafor",
                "The agency had changed its scale, and version 12 learned from the new one.",
                served_from="2026-03-19",
            ),
        ),
        opponent=11,
        disagreements=(
            Disagreement(
                "A-2026-0310-00417",
                "2026-03-10",
                0.071,
                0.604,
                "credit_score_3, previous_claim_rate",
            ),
            Disagreement(
                "A-2026-0311-00922",
                "2026-03-11",
                0.552,
                0.118,
                "income, driving_record",
            ),
            Disagreement(
                "A-2026-0312-00103",
                "2026-03-12",
                0.213,
                0.598,
                "insurance_hist_4",
            ),
        ),
    )


HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> & "quoted"'
LONG = "a_very_long_feature_name_that_somebody_thought_was_a_good_idea_" * 3


def one_class_card() -> Card:
    """A holdout without a single claim: nothing that compares outcomes is defined."""
    card = sample_card()
    evaluation = card.evaluation
    holdout = Part(
        rows=40,
        positives=0,
        metrics=dict.fromkeys(evaluation.parts["holdout"].metrics, NONE),
        confusion=(31, 9, 0, 0),
    )
    empty = evaluation.calibration.model_copy(
        update={
            "method": "none",
            "before": dict.fromkeys(evaluation.calibration.before, NONE),
            "after": dict.fromkeys(evaluation.calibration.after, NONE),
            "reliability_before": (),
            "reliability_after": (Bin(rows=40, promised=0.08, realised=NONE),),
        }
    )
    return replace(
        card,
        status="challenger",
        evaluation=evaluation.model_copy(
            update={
                "parts": {**evaluation.parts, "holdout": holdout},
                "calibration": empty,
                "costs": evaluation.costs.model_copy(
                    update={"curve": (), "holdout": NONE, "threshold": 0.97}
                ),
                "roc": (),
                "precision_recall": (),
                "lift": (Decile(decile=1, rows=4, positives=0, lift=NONE),),
                "slices": tuple(
                    one.model_copy(update={"roc_auc": NONE, "log_loss": NONE})
                    for one in evaluation.slices
                ),
                "expected_positives": Estimate(value=3.2, low=None, high=None),
                "actual_positives": 0,
            }
        ),
    )


def bare_card() -> Card:
    """A first version: nothing before it, nothing beside it, nobody has decided."""
    card = sample_card()
    return replace(
        card,
        status="challenger",
        limits=(),
        owners=(),
        lock_sha256="",
        decision=None,
        duplicates={},
        dropped={},
        previous_version=None,
        drift=(),
        approvals=(),
        opponent=None,
        disagreements=(),
        evaluation=card.evaluation.model_copy(update={"slices": (), "importance": ()}),
    )


def crowded_card() -> Card:
    """Forty groups, long names, extreme drift, markup in every text."""
    card = sample_card()
    evaluation = card.evaluation
    slices = tuple(
        group(
            LONG if index < 3 else f"column_{index // 5}",
            HOSTILE if index == 7 else f"{index}",
            n,
            n // 6,
            n / 6,
        )
        for index, n in enumerate(int(12 * 1.16**step) for step in range(40))
    )
    first = evaluation.importance[0].model_copy(update={"feature": LONG})
    second = evaluation.importance[1].model_copy(update={"feature": HOSTILE})
    return replace(
        card,
        status="retired",
        use_case=HOSTILE,
        description=HOSTILE,
        purpose=HOSTILE,
        limits=(HOSTILE,),
        owners=(HOSTILE,),
        code_version=HOSTILE,
        hyperparameters={HOSTILE: HOSTILE},
        hyperparameters_from=HOSTILE,
        duplicates={HOSTILE: HOSTILE},
        dropped={HOSTILE: HOSTILE},
        row=HOSTILE,
        decision=Decision("not_shown", HOSTILE, (Guardrail(HOSTILE, False, HOSTILE),)),
        drift=((LONG, 7.3), (HOSTILE, float("inf")), ("same", 0.0), ("unknown", float("nan"))),
        approvals=(Approval(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        disagreements=(Disagreement(HOSTILE, HOSTILE, 0.00001, 0.99999, HOSTILE),),
        evaluation=evaluation.model_copy(
            update={"slices": slices, "importance": (first, second, *evaluation.importance[2:])}
        ),
    )


def odd_cards() -> dict[str, Card]:
    return {"one_class": one_class_card(), "bare": bare_card(), "crowded": crowded_card()}


CARDS = {
    "sample": sample_card,
    "one_class": one_class_card,
    "bare": bare_card,
    "crowded": crowded_card,
}


@pytest.fixture(params=CARDS)
def page(request: pytest.FixtureRequest) -> str:
    return model_card(CARDS[request.param]())


class Outline(HTMLParser):
    """Reads a page: complains of tags that do not pair, and notes what matters."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


def text_of(page: str, section: str) -> str:
    found = re.search(rf'<section id="{section}".*?</section>', page, re.DOTALL)
    assert found
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found.group()))


def test_every_section_is_there_with_its_heading_and_a_link(page: str) -> None:
    outline = Outline(page)
    assert [section["id"] for section in outline.all("section")] == SECTIONS
    headings = {heading.get("id") for heading in outline.all("h2")}
    assert all(section["aria-labelledby"] in headings for section in outline.all("section"))
    links = {link["href"] for link in outline.all("a")}
    assert {f"#{name}" for name in (*SECTIONS, "main")} <= links
    assert len(outline.all("h1")) == len(outline.all("main")) == len(outline.all("nav")) == 1
    assert outline.all("html")[0]["lang"] == "en"


def test_nothing_is_loaded_from_outside(page: str) -> None:
    outline = Outline(page)
    assert not outline.all("script", "link", "img", "iframe", "object", "embed", "base", "form")
    for _, attributes in outline.tags:
        assert not {"src", "srcset", "action", "background", "xlink:href"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("href", "#").startswith("#")
    style = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(style) == 1
    assert "url(" not in style[0]
    assert "@import" not in style[0]
    assert "http" not in page


def test_texts_are_escaped_wherever_they_are_shown() -> None:
    page = model_card(crowded_card())
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    Outline(page)


def test_graphics_are_well_formed_named_and_real_text(page: str) -> None:
    graphics = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(graphics) > 15
    charts = 0
    for graphic in graphics:
        root = ElementTree.fromstring(graphic)
        if root.get("role") == "img":
            charts += 1
            assert root.findtext("title")
            assert root.findtext("desc")
            assert root.findall(".//text")
        else:
            assert root.get("aria-hidden") == "true"
        for element in root.iter():
            assert "nan" not in " ".join(element.attrib.values())
    assert charts == (0 if 'class="big none"' in page else 6)


def test_ids_are_unique(page: str) -> None:
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_table_headers_have_a_scope(page: str) -> None:
    assert all(header.get("scope") for header in Outline(page).all("th"))


def test_same_card_gives_the_same_bytes_and_a_small_file(page: str) -> None:
    assert model_card(sample_card()) == model_card(sample_card())
    assert len(page.encode()) < 400_000
    assert page.startswith("<!doctype html>")


@pytest.mark.parametrize("status", ["champion", "challenger", "retired"])
def test_status_is_shown(status: str) -> None:
    page = model_card(replace(sample_card(), status=status))
    assert f'<span class="status {status}">{status}</span>' in page
    assert f"version 12 ({status})" in page


def test_figures_come_with_interval_and_number_of_rows() -> None:
    page = model_card(sample_card())
    header = re.sub(r"<[^>]+>", " ", page[page.index("<header") : page.index("</header>")])
    for text in ("0.908", "0.896 to 0.920", "0.2684", "733", "687 to 779", "4,712", "15.6\u00a0%"):
        assert text in header


def test_what_is_not_defined_is_said_so() -> None:
    page = model_card(one_class_card())
    assert text_of(page, "quality").count("not defined") >= 12
    assert "not defined" in text_of(page, "slices")
    assert "not defined" in text_of(page, "calibration")
    assert "None" not in re.sub(r"None declared|None were", "", page)
    assert "could not be judged on ranking" in page


def test_absent_parts_say_why() -> None:
    page = model_card(bare_card())
    assert "This is the first version" in text_of(page, "drift")
    assert "nothing to compare" in text_of(page, "shadow")
    assert "has not judged this version" in text_of(page, "approval")
    assert "has decided on this version yet" in text_of(page, "approval")
    assert "does not mean that there are none" in text_of(page, "limits")
    assert "No groups were declared" in text_of(page, "slices")
    later = replace(bare_card(), previous_version=3, opponent=3)
    assert "No comparison with version 3" in text_of(model_card(later), "drift")
    assert "version 3 is recorded" in text_of(model_card(later), "shadow")


def test_small_groups_are_muted_and_never_flagged() -> None:
    page = model_card(sample_card())
    small = re.findall(r'<tr role="row" class="small">.*?</tr>', page, re.DOTALL)
    assert len(small) == 3
    assert all('<g class="muted">' in row and "flag" not in row for row in small)
    assert is_small(group("x", "0", 199, 60, 60))
    assert is_small(group("x", "0", 1_000, 19, 19))
    assert is_small(group("x", "0", 1_000, 985, 985))
    assert not is_small(group("x", "0", 200, 20, 20))


def test_a_group_with_more_or_fewer_positives_than_chance_explains_is_flagged() -> None:
    assert surprise(group("x", "0", 1_000, 160, 160)) == ""
    assert surprise(group("x", "0", 1_000, 182, 160)) == ""
    assert surprise(group("x", "0", 1_000, 184, 160)) == "more"
    assert surprise(group("x", "0", 1_000, 137, 160)) == "fewer"
    page = model_card(sample_card())
    assert page.count('class="flag"') == 1
    assert "▲ more" in text_of(page, "slices")
    assert "In 1 of the 9 larger groups" in text_of(page, "slices")


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        (735, "735 came, within what chance allows"),
        (780, "780 came, more than chance explains"),
        (686, "686 came, fewer than chance explains"),
    ],
)
def test_verdict_says_whether_chance_explains_the_count(actual: int, words: str) -> None:
    card = sample_card()
    evaluation = card.evaluation.model_copy(update={"actual_positives": actual})
    assert verdict(replace(card, evaluation=evaluation)).endswith(words + ".")


def test_drift_is_told_by_the_usual_bands_and_sorted() -> None:
    card = replace(
        sample_card(), drift=(("a", 0.1), ("b", 0.25), ("c", 0.26), ("d", 9.0), ("e", 0.0))
    )
    told = drift_told(card)
    assert told.startswith("How far the newest days have moved from those that version 11 learned")
    assert "of 5 inputs, 2 moved much and 1 a little; 2 are stable" in told
    section = text_of(model_card(card), "drift")
    assert re.findall(r" (?=[a-e] )[a-e]", section.split("Says")[1])[:5] == [
        " d",
        " c",
        " b",
        " a",
        " e",
    ]
    assert "»" in section.split("Says")[1]


def test_drift_that_is_not_defined_is_no_alarm() -> None:
    card = replace(sample_card(), drift=(("a", float("nan")), ("b", 0.3)))
    section = text_of(model_card(card), "drift")
    assert "1 moved much and 0 a little" in section
    assert section.index("large shift") < section.index("not defined")
    assert section.count("large shift") == 1


def test_broken_guardrails_are_told_from_passed_ones_by_a_word() -> None:
    card = replace(
        sample_card(),
        decision=Decision(
            "not_shown",
            "stays challenger",
            (Guardrail("cost", False, "dearer by 0.1"), Guardrail("slices", True, "")),
        ),
    )
    told = text_of(model_card(card), "approval")
    assert "broken cost : dearer by 0.1" in told
    assert "passed slices" in told
    assert "Stays challenger" in told
