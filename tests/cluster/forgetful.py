"""The service with little memory for plans that have ended: it forgets them after few tasks.

Usage: python -m tests.cluster.forgetful serve …, as `python -m service serve …`.
"""

import sys
from typing import Any

from projections.board.board import Board
from projections.board.recent import RecentLimits
from service.cli.main import main

TASKS = 200

if __name__ == "__main__":
    begin: Any = Board.__init__
    begin.__kwdefaults__["recent"] = RecentLimits(tasks=TASKS)
    sys.exit(main())
