"""The code location's entry."""

from ml_assets.build import build_definitions

defs = build_definitions()
