"""Programs that are no Python packages: a browser, a proxy, a monitor, as Debian packages them."""

import os
import shutil

import pytest

# Debian keeps servers where the PATH of people does not look.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

PACKAGES = {
    "nginx": "nginx-light",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "curl": "curl",
    "openssl": "openssl",
    "node": "nodejs",
    "unshare": "util-linux",
    "mount": "mount",
}
ELSEWHERE = {
    "openapi-python-client": "pip install openapi-python-client",
    "openapi-typescript": "npm install openapi-typescript openapi-fetch",
    "tsc": "npm install typescript@5 axe-core@4",
}


def program(name: str) -> str:
    """The path of a program; without it the test is skipped, or fails where ``CI`` is set."""
    path = shutil.which(name, path=PATH)
    if path is not None:
        return path
    debian = f"Debian: apt-get install {PACKAGES.get(name, name)}"
    missing = f"needs {name} ({ELSEWHERE.get(name, debian)})"
    if os.environ.get("CI"):
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)
