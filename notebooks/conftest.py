"""Under nbval, progress bars print seldom.

nbval reads a cell's messages only when the cell has ended. The thousands that a bar sends during some minutes of training fill the
queue, what comes after them is lost, and the cell is said to have timed out.
"""

import os

os.environ.setdefault("TQDM_MININTERVAL", "5")  # seconds; notebooks inherit it
