"""Daily batch machine learning for insurers, as a Dagster asset platform."""
