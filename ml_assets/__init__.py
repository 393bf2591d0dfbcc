"""Daily batch machine learning for insurers, as a Dagster asset platform."""

import os

# Threads that wait for one another shall sleep, not spin. Beside other work on the same two cores,
# training with two spinning threads took 12 to 58 s instead of 1.5 s alone, and 9 s with sleeping
# ones. OpenMP reads this once, when XGBoost is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
