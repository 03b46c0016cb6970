"""Makes the recordings anew: ``python -m tests.integration.recorded.record [SCENE]``.

Only for a change of the contract: read the difference before it is committed, and note in
``changed`` which issue asks for it.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.integration.recorded.scenes import SCENES, lines_of, play


async def _record(scene: str) -> None:
    lines = lines_of(scene)
    with tempfile.TemporaryDirectory() as folder:
        answers = [answer async for _, answer in play(scene, Path(folder))]
    text = "".join(
        json.dumps(line | {"answer": answer}, ensure_ascii=False) + "\n"
        for line, answer in zip(lines, answers, strict=True)
    )
    (Path(__file__).parent / f"{scene}.jsonl").write_text(text, encoding="utf-8")
    print(f"{scene}: {len(lines)} requests")  # noqa: T201


if __name__ == "__main__":
    for name in sys.argv[1:] or SCENES:
        asyncio.run(_record(name))
