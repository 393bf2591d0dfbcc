"""Daily batch machine learning for insurers, as a Dagster asset platform.

In a notebook, `ml_assets.load("claims/features")` gives a frame; all else is in the submodules.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_assets.data import load

__all__ = ["load"]

# Threads that wait for one another shall sleep, not spin. Beside other work on the same two cores,
# training with two spinning threads took 12 to 58 s instead of 1.5 s alone, and 9 s with sleeping
# ones. OpenMP reads this once, when XGBoost is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def __getattr__(name: str) -> Any:
    """Load what costs time to import only when it is asked for."""
    if name == "load":
        from ml_assets.data import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
