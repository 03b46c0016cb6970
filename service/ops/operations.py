"""What operators ask of a running instance: its readiness, its status, its diagnosis."""

import msgspec

from service.ops.doctor.sources.live import Doctor
from service.ops.health import Health


class Operations(msgspec.Struct, frozen=True):
    """Made by the composition root, and given to whatever answers operators."""

    health: Health
    doctor: Doctor
