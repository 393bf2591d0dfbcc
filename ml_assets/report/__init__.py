"""The model card: one self-contained page per model version, for people.

Nothing here imports dagster, reads a clock, or computes a metric: it shows what it is given.
"""
