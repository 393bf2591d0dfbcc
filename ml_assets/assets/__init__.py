"""Asset builders, a file per stage of a row's journey; each turns a use case into Dagster assets.

They are thin shells: read through a resource, call `ml_assets.core`, report metadata.
"""
