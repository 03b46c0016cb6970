"""The page's own modules: their tests on node, their types, and what is vendored."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.programs import program

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "service" / "http" / "page"
VENDOR = PAGE / "vendor"


@pytest.mark.timeout(120)
def test_its_modules_pass_their_tests() -> None:
    tests = sorted(map(str, (ROOT / "tests" / "page").glob("*.test.mjs")))
    assert tests
    done = subprocess.run(
        [program("node"), "--test", *tests],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4_000:]


@pytest.mark.timeout(120)
def test_its_types_are_right() -> None:
    done = subprocess.run(
        [program("tsc"), "-p", str(PAGE)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout[-4_000:]


def test_what_is_vendored_is_what_the_manifest_says() -> None:
    listed = {each["file"]: each for each in json.loads((VENDOR / "manifest.json").read_text())}
    present = {path.name for path in VENDOR.glob("*.js")}
    assert listed.keys() == present
    for name, entry in listed.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == entry["sha256"], name
        assert entry["version"]
        assert entry["license"]


def test_nothing_comes_from_outside_and_nothing_is_markup() -> None:
    for path in PAGE.glob("*"):
        if path.suffix in {".js", ".html", ".css"}:
            text = path.read_text()
            for banned in ("innerHTML", "dangerouslySetInnerHTML", "eval(", "https://", 'style="'):
                assert banned not in text, f"{banned} in {path.name}"


def test_all_modules_of_the_first_screen_are_fetched_at_once() -> None:
    needed: set[str] = set()

    def walk(name: str) -> None:
        found = re.findall(
            r'^import (?:[^;]*? from )?"\./([^"]+)";', (PAGE / name).read_text(), re.MULTILINE
        )
        for each in set(found) - needed:
            needed.add(each)
            walk(each)

    walk("main.js")
    preloaded = re.findall(
        r'rel="modulepreload" href="page/([^"]+)"', (PAGE / "index.html").read_text()
    )
    assert sorted(needed) == preloaded
