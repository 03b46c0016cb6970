"""Holdfast without its origin check, to show that a test would notice its absence."""

import sys

from service.cli.main import main
from service.http.origin_check import OriginCheck

OriginCheck.check = lambda *_: None  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())
