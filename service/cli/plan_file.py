"""Reads a plan from a file: JSON, YAML or TOML; a mistake is named by line and column."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any, NoReturn, cast

import msgspec
import yaml

from service.cli.plan_places import place_of

Json = dict[str, Any]


class BadFile(Exception):
    """The file holds no plan; the message says where and why."""


class ReadPlan(msgspec.Struct, frozen=True):
    """A plan, and the text that it was read from."""

    name: str
    text: str
    plan: Json

    def located(self, detail: str) -> str:
        """Where in the file the part stands that a refusal names, as a beginning of its line."""
        place = place_of(detail, self.plan, self.text, Path(self.name).suffix.lower())
        return "" if place is None else f"{self.name}: line {place[0]}, column {place[1]}: "


def plan_in(file: str) -> ReadPlan:
    """The plan in ``file`` (- is JSON on standard input). Raises BadFile."""
    name = "standard input" if file == "-" else file
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = content.decode("utf-8")
    except OSError as error:
        raise BadFile(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadFile(f"{name}: not UTF-8 text: byte {error.start}") from None
    plan = _parsed(name, text)
    if not isinstance(plan, dict):
        raise BadFile(f"{name}: a plan is an object with `tasks`")
    try:
        json.dumps(plan, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:  # a date of YAML, half a character
        raise BadFile(f"{name}: JSON cannot hold it: {error}") from None
    return ReadPlan(name, text, cast("Json", plan))


def _parsed(file: str, text: str) -> object:
    match Path(file).suffix.lower():
        case ".yaml" | ".yml":
            return _yaml(file, text)
        case ".toml":
            return _toml(file, text)
        case _:
            return _json(file, text)


def _json(file: str, text: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise BadFile(f"{file}: not valid JSON: {at}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{file}: not valid JSON: {error}") from None


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")


def _yaml(file: str, text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise BadFile(f"{file}: not valid YAML: {at}{error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise BadFile(f"{file}: not valid YAML: {error}") from None


def _toml(file: str, text: str) -> object:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # its message names line and column
        raise BadFile(f"{file}: not valid TOML: {error}") from None
