"""The process: it serves HTTP, runs tasks and keeps the house in order, above the projections."""

VERSION = "0.1.0"
