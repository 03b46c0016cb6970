"""The process: serves HTTP, runs tasks and does the housekeeping, on top of the projections."""

VERSION = "0.1.0"
