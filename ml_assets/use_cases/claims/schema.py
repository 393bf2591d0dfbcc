"""The contracts of the claims tables: column names, types, ranges and what each column means.

Tables that look the same in every use case are in `ml_assets.core.tables`.
"""

from typing import Annotated, Any

import pandas as pd
import pandera.pandas as pa
from pandera.typing import Series

Instant = Annotated[pd.DatetimeTZDtype, "us", "UTC"]


def _amount(low: float, high: float, description: str) -> Any:
    return pa.Field(ge=low, le=high, description=f"{description}; {low:g} to {high:g}")


def _flag(description: str) -> Any:
    return pa.Field(isin=[0, 1], description=f"{description}: 0 no, 1 yes")


def _level(low: int, high: int, description: str) -> Any:
    return pa.Field(
        isin=list(range(low, high + 1)), description=f"{description}: level {low} to {high}"
    )


def _letter(last: str, description: str) -> Any:
    letters = [chr(code) for code in range(ord("A"), ord(last) + 1)]
    return pa.Field(isin=letters, description=f"{description}: code A to {last}")


class ClaimsFeatures(pa.DataFrameModel):
    """One application as the model may see it; row per application, partitioned by day."""

    day: Series[str] = pa.Field(description="Local day of receipt, YYYY-MM-DD: the partition")
    application_id: Series[str] = pa.Field(description="The insurer's key of the application")
    received_at: Series[Instant] = pa.Field(description="When the application came in")
    updated_at: Series[Instant] = pa.Field(description="When the source last changed the row")
    claim_status: Series[pd.Int8Dtype] = pa.Field(
        isin=[0, 1],
        nullable=True,
        description="Outcome: 1 claimed, 0 did not, missing until known",
    )
    age: Series[int] = _amount(18, 95, "Age in years")
    height_cm: Series[int] = _amount(140, 210, "Height in cm")
    weight_kg: Series[int] = _amount(45, 125, "Weight in kg")
    income: Series[int] = _amount(0, 250_000, "Yearly income")
    financial_hist_1: Series[float] = _amount(-50, 50, "Financial history score 1")
    financial_hist_2: Series[float] = _amount(-50, 50, "Financial history score 2")
    financial_hist_3: Series[float] = _amount(-50, 50, "Financial history score 3")
    financial_hist_4: Series[float] = _amount(-50, 50, "Financial history score 4")
    credit_score_1: Series[int] = _amount(0, 999, "Credit score of agency 1")
    credit_score_2: Series[int] = _amount(0, 700, "Credit score of agency 2")
    credit_score_3: Series[int] = _amount(0, 710, "Credit score of agency 3")
    insurance_hist_1: Series[float] = _amount(-50, 50, "Insurance history score 1")
    insurance_hist_2: Series[float] = _amount(-50, 50, "Insurance history score 2")
    insurance_hist_3: Series[float] = _amount(-50, 50, "Insurance history score 3")
    insurance_hist_4: Series[float] = _amount(-50, 50, "Insurance history score 4")
    insurance_hist_5: Series[float] = _amount(-50, 50, "Insurance history score 5")
    bmi: Series[int] = _amount(8, 80, "Body mass index in kg/m2")
    gender: Series[int] = pa.Field(isin=[0, 1], description="Gender: code 0 or 1")
    marital_status: Series[str] = _letter("F", "Marital status")
    occupation: Series[str] = _letter("G", "Occupation")
    location: Series[str] = _letter("Z", "Location")
    prev_claim_rejected: Series[int] = _flag("An earlier claim was rejected")
    known_health_conditions: Series[int] = _flag("Health conditions are known")
    uk_residence: Series[int] = _flag("Resident in the UK")
    family_history_1: Series[int] = _flag("Family history 1")
    family_history_2: Series[int] = _flag("Family history 2")
    family_history_4: Series[int] = _flag("Family history 4")
    family_history_5: Series[int] = _flag("Family history 5")
    product_var_1: Series[int] = _flag("Product variant 1")
    product_var_2: Series[int] = _flag("Product variant 2")
    product_var_3: Series[str] = _letter("D", "Product variant 3")
    product_var_4: Series[int] = _flag("Product variant 4")
    health_status: Series[int] = _level(1, 4, "Health status")
    driving_record: Series[int] = _level(1, 4, "Driving record")
    previous_claim_rate: Series[int] = _level(1, 5, "Rate of earlier claims")
    education_level: Series[int] = _level(0, 6, "Education")
    income_level: Series[int] = _level(0, 4, "Income")
    n_dependents: Series[int] = pa.Field(
        isin=[1, 2, 3, 4, 5], description="Number of dependents, 1 to 5"
    )

    class Config:
        """Nothing but these columns, in any order."""

        strict = True


class ClaimsRaw(ClaimsFeatures):
    """One application as the source said it that day, with the columns that no model sees."""

    # Optional: a delivery may lack these columns altogether.
    family_history_3: Series[pd.Int8Dtype] | None = pa.Field(
        isin=[0, 1], nullable=True, description="Family history 3: mostly not asked"
    )
    employment_type: Series[pd.Int8Dtype] | None = pa.Field(
        isin=[0, 1], nullable=True, description="Employment type: mostly not given"
    )
