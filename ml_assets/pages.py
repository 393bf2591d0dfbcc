"""Keeps the pages for people in the project's folder, whatever they are about.

What is on them, and where each lies, is in `ml_assets.model_cards` and
`ml_assets.monitoring_pages`.
"""

import os
from pathlib import Path


def replace_page(file: Path, content: bytes) -> None:
    """Write a page in full or not at all: an older one stays as it was, and no half is left.

    Raises:
        OSError: It cannot be written.
    """
    aside = file.with_suffix(f".{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(file)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
