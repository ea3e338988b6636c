"""The course's package: one module per idea, each importing only modules before it (see README.md)."""
