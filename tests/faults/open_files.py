"""How many files and sockets a process has open, without those of the read models."""

import psutil

from service.runtime.data_folder import READ_MODELS


def files_open(pid: int) -> int:
    """All but those of the read models.

    A reader of the database closes its file after a read that was given up, and opens it for the
    next one; SQLite keeps a closed one back for later while another connection of the process holds
    a lock. How many are open at a moment is chance.
    """
    process = psutil.Process(pid)
    kept = [each for each in process.open_files() if READ_MODELS in each.path]
    return process.num_fds() - len(kept)
