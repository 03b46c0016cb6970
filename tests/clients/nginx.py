"""A reverse proxy as Debian configures it: its own nginx.conf, with one site before an instance."""

import re
import socket
import subprocess
from pathlib import Path
from typing import Self

from service.runtime.child_process import dying_with_parent
from tests.faults.service_process import until
from tests.ports import free_port
from tests.programs import program

DEBIAN = Path("/etc/nginx/nginx.conf")
START_S = 10.0

SITE = """
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/pages;
        location /pages/ {{ alias {folder}/pages/; }}
        location / {{ {more} proxy_pass {upstream}; }}
    }}
"""


class Nginx:
    """Debian's nginx before ``upstream``; what lies in ``pages`` is served below /pages/.

    ``more`` stands in the proxied location: directives beyond the defaults.
    """

    def __init__(self, folder: Path, upstream: str, more: str = "") -> None:
        self._program = program("nginx")
        self._folder = folder
        self.pages = folder / "pages"
        self.pages.mkdir(parents=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        site = SITE.format(folder=folder, port=self.port, more=more, upstream=upstream)
        (folder / "nginx.conf").write_text(_configuration(folder, site))

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            dying_with_parent(
                self._program,
                *("-c", str(self._folder / "nginx.conf"), "-e", str(self._folder / "error.log")),
                # One process, which keeps the user that started it.
                *("-g", f"daemon off; master_process off; pid {self._folder}/pid;"),
            ),
            stdin=subprocess.DEVNULL,
        )
        until(self._answers, START_S, "nginx listens")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(START_S)

    @property
    def access_log(self) -> str:
        """Who was answered what, in Apache's format."""
        return (self._folder / "access.log").read_text()

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "error.log").read_text()
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", self.port)) == 0


def _configuration(folder: Path, site: str) -> str:
    """Debian's file; only where it keeps its state, and which sites it serves, is replaced."""
    elsewhere = re.compile(r"^\s*(user|pid|error_log|access_log) .*\n", re.MULTILINE)
    sites = re.compile(r"^\s*include /etc/nginx/sites-enabled/.*\n", re.MULTILINE)
    found, replaced = sites.subn(site, elsewhere.sub("", DEBIAN.read_text()))
    assert replaced == 1, found
    return f"error_log {folder}/error.log;\n{found}"
