"""What operators ask of a running instance: its readiness, its status, its diagnosis."""

import msgspec

from service.ops.doctor.sources.live import Doctor
from service.ops.health import Health
from service.ops.last_hour import Minutes


class Operations(msgspec.Struct, frozen=True):
    """Made by the composition root, and given to whatever answers operators."""

    health: Health
    doctor: Doctor
    last_hour: Minutes
