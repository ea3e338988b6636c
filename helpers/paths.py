"""Where things are: the repository's folders as absolute paths, whatever the working directory."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
TINY_BASE = DATA / "tiny_base"
SUPPORT_DESK = DATA / "support_desk"
OUTPUTS = ROOT / "outputs"  # git-ignored: adapters and results that can be made again
