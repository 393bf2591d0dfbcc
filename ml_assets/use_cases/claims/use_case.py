"""The declaration of the claims use case."""

from datetime import date
from pathlib import Path

from ml_assets.use_case import UseCase
from ml_assets.use_cases.claims.schema import ClaimsFeatures, ClaimsRaw

CLAIMS = UseCase(
    name="claims",
    description="Likelihood that an application leads to a claim",
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
    # Outcomes become known 1 to 45 days after receipt; younger rows are a biased sample.
    label_maturity_days=45,
    training_window_days=180,
    start_date=date(2025, 7, 1),
    weekday_volume=(900, 1_500),
    weekend_volume=(350, 800),
)
