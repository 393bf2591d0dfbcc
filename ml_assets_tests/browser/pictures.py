"""From the browser tests' screenshots to the docs' pictures, small enough to be kept in git.

`make pictures` runs the tests, and then this.
"""

import sys
from pathlib import Path

from PIL import Image, ImageChops, ImageOps

# The screenshot, the picture below docs/, and what of it is shown: left, top, right and bottom.
_PICTURES = {
    "graph": ("ui-graph.png", (256, 168, 1752, 690)),
    "dialog_launch_1_run": ("images/ui-materialise.png", (240, 0, 1280, 900)),
    # Not the figures: they name a folder of the machine.
    "materialised": ("images/ui-materialised.png", (240, 0, 1280, 480)),
    "failed_check": ("images/ui-failed-check.png", (240, 0, 1280, 720)),
    "automation": ("images/ui-automation.png", (240, 0, 1280, 700)),
}
_COLOURS = 128
_MARGIN = 16  # pixels around the graph


def main(shots: Path, docs: Path) -> None:
    """Write every picture.

    Args:
        shots: The folder of the screenshots.
        docs: The folder of the docs.
    """
    for name, (place, part) in _PICTURES.items():
        with Image.open(shots / f"{name}.png") as shot:
            picture = shot.convert("RGB").crop(part)
        if name == "graph":
            picture = _without_border(picture)
        picture = picture.quantize(_COLOURS, dither=Image.Dither.NONE)
        file = docs / place
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file, optimize=True)
        print(f"{file}: {file.stat().st_size / 1000:.0f} kB, {picture.width} x {picture.height}")


def _without_border(picture: Image.Image) -> Image.Image:
    """Cut away what is as light as the dotted ground all around."""
    drawn = ImageChops.invert(picture.convert("L")).point(lambda dark: 255 if dark > 40 else 0)
    part = picture.crop(drawn.getbbox())
    return ImageOps.expand(part, _MARGIN, fill="white")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
