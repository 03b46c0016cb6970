"""The HTTP API, as API.md describes it: a Litestar application."""
