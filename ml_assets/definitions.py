"""The code location's entry."""

import dagster as dg

from ml_assets.build import build_definitions
from ml_assets.environment import load_environment
from ml_assets.logs import configure

defs = build_definitions()
assets = [each for each in defs.assets or () if isinstance(each, dg.AssetsDefinition)]
configure(load_environment().logs, [key.to_user_string() for each in assets for key in each.keys])
