"""The worker kit's wheel: built as its own distribution, and whole without the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.faults.service_process import ROOT

KIT = ROOT / "service" / "worker_kit"
OFFLINE = ("--quiet", "--no-index", "--no-deps", "--disable-pip-version-check")
BUILD_S = 120


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=BUILD_S, cwd=KIT.parent)


def test_the_kit_is_built_as_a_wheel_that_serves_without_the_checkout(tmp_path: Path) -> None:
    pip("wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", tmp_path, KIT)
    (wheel,) = tmp_path.glob("holdfast_worker-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = archive.namelist()
    assert {name.split("/")[0] for name in held if ".dist-info/" not in name} == {"holdfast_worker"}
    assert "holdfast_worker/py.typed" in held
    sources = {path.name for path in (KIT / "src" / "holdfast_worker").glob("*.py")}
    assert sources == {Path(name).name for name in held if name.endswith(".py")}

    pip("install", *OFFLINE, "--target", tmp_path / "site", wheel)
    asked = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import holdfast_worker as kit\n"
        "print(kit.__file__, [name for name in kit.__all__ if not hasattr(kit, name)])"
    )
    said = subprocess.run(
        [sys.executable, "-I", "-c", asked],
        check=True,
        timeout=BUILD_S,
        capture_output=True,
        text=True,
    )
    assert said.stdout.split() == [str(tmp_path / "site" / "holdfast_worker" / "__init__.py"), "[]"]
