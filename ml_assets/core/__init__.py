"""The machine learning: pure functions on frames, arrays and models.

Nothing here imports dagster, reads a clock, or knows where tables and models are stored.
"""
