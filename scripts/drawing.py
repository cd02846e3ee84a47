"""What the drawing scripts share: a font that has the characters."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from PIL import ImageFont

FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".local/share/fonts")
NAMES = ("NotoSansCJK-Bold.ttc", "NotoSansCJKtc-Bold.otf", "NotoSansTC-Bold.otf", "NotoSansCJK-Regular.ttc",
         "wqy-microhei.ttc")  # fmt: skip
TRADITIONAL = "TC"
REMEDY = (
    "no font with Traditional Chinese was found; "
    "install one (apt-get install fonts-noto-cjk) or name its file in CAPRAG_FONT"
)


def caption_font(size: int, *, install: bool = False) -> ImageFont.FreeTypeFont:
    """Load a Traditional Chinese bold sans.

    Parameters
    ----------
    size
        Type size in pixels.
    install
        Install Debian's fonts-noto-cjk where no font is found and the user may install.
    """
    path = _find()
    if path is None and install and shutil.which("apt-get"):
        print("installing the font package fonts-noto-cjk (57 MB)", flush=True)
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "fonts-noto-cjk"]):
            rights = [] if os.geteuid() == 0 else ["sudo", "-n"]
            subprocess.run([*rights, "apt-get", *command], check=False, stdout=subprocess.DEVNULL)
        path = _find()
    if path is None:
        raise SystemExit(REMEDY)
    if path.suffix == ".ttc":
        # A collection holds a face for each region.
        for number in range(16):
            try:
                face = ImageFont.truetype(path, size, index=number)
            except OSError:
                break
            if (face.getname()[0] or "").endswith(TRADITIONAL):
                return face
    return ImageFont.truetype(path, size)


def _find() -> Path | None:
    if named := os.environ.get("CAPRAG_FONT"):
        return Path(named)
    for name in NAMES:
        for folder in FOLDERS:
            if found := next(iter(sorted(folder.rglob(name))), None):
                return found
    return None
