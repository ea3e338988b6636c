"""The course's package: one module per idea, each importing only modules before it (see README.md)."""

from logging import getLogger

getLogger("bitsandbytes").setLevel("ERROR")  # at import it warns of an optional kernel that nothing here needs
