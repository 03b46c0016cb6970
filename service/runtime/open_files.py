"""How many files this process may open: each event stream is one, and a usual login allows 1,024.

Past the limit no connection is accepted any more, not even that of a probe; so the configured limit
of streams, which answers 503, has to come first.
"""

import resource

OTHERS = 1_000  # files for everything but event streams


def allow_streams(wanted: int) -> int:
    """Raise the limit to what ``wanted`` streams need; how many there is room for in the end.

    The hard limit is the machine's owner's, and stays.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    needed = wanted + OTHERS
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return min(wanted, max(soft, allowed) - OTHERS)
