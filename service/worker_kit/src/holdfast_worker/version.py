"""The version of the worker kit, which is also the version of its wheel."""

VERSION = "0.1.0"
