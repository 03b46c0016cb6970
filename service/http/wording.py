"""What msgspec says about a value that does not fit, in the words of the person who sent it."""

import re
from collections.abc import Mapping

from service.http.schemas import PATTERNS

KINDS: Mapping[str, str] = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}
PARTS: Mapping[str, str] = {"str": "characters", "array": "items", "object": "entries"}
BOUNDS: Mapping[str, str] = {
    ">=": "at least",
    "<=": "at most",
    ">": "more than",
    "<": "less than",
}

_pattern = re.compile(r"Expected `str` matching regex '(.*)'", re.DOTALL).fullmatch
_length = re.compile(r"Expected `(str|array|object)` of length ([<>]=) (\d+)").fullmatch
_bound = re.compile(r"Expected `(?:int|float)` ([<>]=?) (\S+)").fullmatch
_type = re.compile(r"Expected `([^`]+)`, got `(\w+)`").fullmatch
_missing = re.compile(r"Object missing required field (`.*`)").fullmatch
_unknown = re.compile(r"Object contains unknown field (`.*`)", re.DOTALL).fullmatch


def in_words(message: str) -> str:
    """The message of an error of msgspec, without the place that it names."""
    if found := _pattern(message):
        described = {repr(pattern)[1:-1]: words for pattern, words in PATTERNS.items()}
        return f"it must be {described.get(found[1], 'of another form')}"
    if found := _length(message):
        return f"it must have {BOUNDS[found[2]]} {found[3]} {PARTS[found[1]]}"
    if found := _bound(message):
        return f"it must be {BOUNDS[found[1]]} {found[2].removesuffix('.0')}"
    if found := _type(message):
        wanted = " or ".join(KINDS.get(each, each) for each in found[1].split(" | "))
        return f"it must be {wanted}, not {KINDS.get(found[2], found[2])}"
    if found := _missing(message):
        return f"the field {found[1]} is missing"
    if found := _unknown(message):
        return f"there is no field {found[1]}"
    return message
