"""The process that checks one answer: a schema and a JSON text on stdin, a complaint on stdout.

It is run by its path, so that it starts quickly: it may import nothing of Holdfast. Its processor
time and its memory are bounded, and it fetches nothing that a schema refers to.
"""

import json
import resource
import sys
from typing import Any

import jsonschema_rs

CPU_S = 10
MEMORY_BYTES = 2 * 1024**3
COMPLAINT_CHARACTERS = 300


def complaint(schema: dict[str, Any], content: str) -> str:
    """Where the JSON text does not fit the schema; "" when it does."""
    try:
        validator = jsonschema_rs.validator_for(
            schema,
            offline=True,
            # Linear time: a pattern cannot make the check run for ever.
            pattern_options=jsonschema_rs.RegexOptions(size_limit=1_000_000),
        )
        validator.validate(json.loads(content))
    except jsonschema_rs.ValidationError as error:
        place = "".join(f"[{step!r}]" for step in error.instance_path)
        return f"${place}: {error.message}"[:COMPLAINT_CHARACTERS]
    except ValueError as error:
        return str(error)[:COMPLAINT_CHARACTERS]
    return ""


def main() -> None:
    """Check what stands on stdin."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    schema, content = json.load(sys.stdin)
    sys.stdout.write(complaint(schema, content))


if __name__ == "__main__":
    main()
