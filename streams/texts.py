"""Texts that are cut to what may be kept or shown."""


def shortened(text: str, most: int) -> str:
    """At most ``most`` characters; a text that was cut ends with "…"."""
    return text if len(text) <= most else text[: most - 1] + "…"
