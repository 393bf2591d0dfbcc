"""Keeps environments apart: which of their places are one and the same.

Compares configurations as plain data. Who reads them, and how a place that belongs to another
environment is told by its stamp, belongs in `ml_assets.environment` and `ml_assets.resources`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_assets.core.texts import visible

# What `shares` may name, after the environment; and where the configuration keeps each.
PLACES = {
    "home": ("home",),
    "warehouse": ("warehouse", "url"),
    "landing": ("landing", "url"),
    "lake": ("lake", "url"),
    "registry": ("registry", "url"),
    "storage": ("storage", "url"),
}
_PORTS = {"postgresql": "5432", "http": "80", "https": "443"}
_URL = re.compile(r"(?P<scheme>\w+)://(?:[^@/?]*@)?(?P<host>[^/?]*)(?P<path>/[^?]*)?(?:\?.*)?")


def clashes(
    own: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]
) -> list[tuple[tuple[str, ...], str]]:
    """What an environment uses that is another's by its files, and does not say that it shares.

    Args:
        own: The configuration, with `{home}` filled in and its URLs masked.
        others: Those of the other environments, by name, likewise.

    Returns:
        The key of each such place, and a sentence with the remedy.
    """
    found = []
    for place, keys in PLACES.items():
        if place in ("warehouse", "landing") and own.get("source") != place:
            continue
        here = _value(own, keys)
        for name, other in others.items():
            if f"{name}.{place}" in (own.get("shares") or []) or not here:
                continue
            if location(here) == location(_value(other, keys)):
                told = (
                    f"this is the {place} of {name}, as {name}.yaml says "
                    f"({visible(here)}), and {own['name']} must not use it by mistake. Give "
                    f"{own['name']} one of its own, in {own['name']}.yaml or by "
                    f"ML_ASSETS_{'_'.join(keys).upper()}; if it is meant, say so in "
                    f"{own['name']}.yaml: shares: [{name}.{place}]"
                )
                found.append((keys, told))
    return found


def location(url: str) -> str:
    """What a URL or path points at, however it is written and whoever logs in there."""
    for start in ("sqlite:///", "duckdb:///", "file://"):
        url = url.removeprefix(start)
    match = _URL.fullmatch(url)
    if not match:
        return str(Path(url).expanduser().resolve()) if url else ""
    scheme = match["scheme"].lower()
    host = match["host"].lower()
    if scheme in _PORTS and not re.search(r":\d+$", host):
        host = f"{host}:{_PORTS[scheme]}"
    return f"{scheme}://{host}{(match['path'] or '').rstrip('/')}"


def _value(configuration: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    value: Any = configuration
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return str(value or "")
