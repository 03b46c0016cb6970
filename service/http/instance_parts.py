"""What the answers of one instance come from; `service.http.front` gives it to each request.

It is in the ASGI scope and not in Litestar's own state: that looks each name up in a function, and
routes that hold no instance can be made once and answer for any.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from service.core.core import Core
from service.http.access import Access
from service.http.quotas import Quotas
from service.ops.operations import Operations

PARTS = "holdfast.parts"


class InstanceParts(msgspec.Struct, frozen=True):
    """The core, what operators ask, who may do what, and how much of it."""

    core: Core
    operations: Operations
    access: Access
    quotas: Quotas


def parts_of(scope: Mapping[str, Any]) -> InstanceParts:
    """The parts that a request is answered from."""
    return scope[PARTS]
