"""The ids of plans that come without one."""

import hashlib
import secrets
import time

from streams.subjects import is_id


def new_plan_id() -> str:
    """An id that no other plan has; later ids sort after earlier ones."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def plan_id_of_key(key: str) -> str:
    """The id that an Idempotency-Key stands for: itself if it can be one, else its digest."""
    text = key.strip()
    digest = hashlib.sha256(key.encode("latin-1")).hexdigest()
    return text if is_id(text) else f"key-{digest[:40]}"
