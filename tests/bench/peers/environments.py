"""A Python environment for each peer, with exactly the packages of its requirements file."""

import subprocess
import sys
from pathlib import Path

from tests.bench.peers.servers import Missing

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / ".venv-peers"
REQUIREMENTS = Path(__file__).parent / "requirements"
INSTALL_S = 600.0


def python_of(peer: str) -> Path:
    """The Python of ``peer``'s environment, which is made unless it is there already.

    Raises Missing where its packages cannot be installed.
    """
    folder, wanted = FOLDER / peer, REQUIREMENTS / f"{peer}.txt"
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted.read_text():
        return python
    print(f"installing the packages of {peer} into {folder} (once)", file=sys.stderr)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--require-hashes", "--no-deps", "-r", str(wanted)],
    ):  # fmt: skip
        done = subprocess.run(command, check=False, timeout=INSTALL_S)
        if done.returncode:
            raise Missing(f"its packages cannot be installed: {' '.join(command)} failed")
    stamp.write_text(wanted.read_text())
    return python
