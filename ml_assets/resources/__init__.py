"""Doors to the outside: the warehouse, the lake and the model registry.

They are plain values, not configurable resources: Dagster shows the configuration of those in the
UI, and URLs may carry passwords.
"""
