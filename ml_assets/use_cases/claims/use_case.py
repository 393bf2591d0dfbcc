"""The declaration of the claims use case."""

from datetime import date
from pathlib import Path

from ml_assets.core.threshold import Costs
from ml_assets.use_case import UseCase
from ml_assets.use_cases.claims.schema import ClaimsFeatures, ClaimsRaw

CLAIMS = UseCase(
    name="claims",
    description="Likelihood that an application leads to a claim",
    purpose="Each probability says how likely an application is to lead to a claim. It is for "
    "choosing which applications a person looks at before a policy is written, and for knowing how "
    "many claims to expect. It is not for refusing an application without a person's judgement, "
    "nor for setting a premium.",
    limits=(
        "It has learned from this insurer's own applications of some months; it does not carry "
        "over to another product, market or time.",
        "An outcome counts as final 45 days after receipt: claims that come later are not known "
        "to it.",
        "It finds patterns, not causes: a reason tells what moved the score, not what would change "
        "the outcome.",
        "Gender, age and location are among its inputs. Whether they may be used is for the "
        "insurer's compliance to say; the slices show how it does for each group.",
    ),
    owners=("team:data-science",),
    query_file=Path(__file__).with_name("source.sql"),
    raw=ClaimsRaw,
    features=ClaimsFeatures,
    key="application_id",
    received_at="received_at",
    updated_at="updated_at",
    target="claim_status",
    dropped={
        "family_history_3": "81 % missing in the notebook's table",
        "employment_type": "71 % missing in the notebook's table",
    },
    categorical=(
        "gender",
        "marital_status",
        "occupation",
        "location",
        "prev_claim_rejected",
        "known_health_conditions",
        "uk_residence",
        "family_history_1",
        "family_history_2",
        "family_history_4",
        "family_history_5",
        "product_var_1",
        "product_var_2",
        "product_var_3",
        "health_status",
        "driving_record",
        "previous_claim_rate",
        "education_level",
        "income_level",
        "n_dependents",
    ),
    slices={
        "gender": None,
        "age": (18, 30, 45, 60),
        "marital_status": None,
        "location": None,
    },
    # In the insurer's currency; to be agreed with the head of claims. What counts is their ratio.
    costs=Costs(missed_claim=1_000.0, needless_referral=100.0),
    # Outcomes become known 1 to 45 days after receipt; younger rows are a biased sample.
    label_maturity_days=45,
    training_window_days=180,
    start_date=date(2025, 7, 1),
    weekday_volume=(900, 1_500),
    weekend_volume=(350, 800),
)
