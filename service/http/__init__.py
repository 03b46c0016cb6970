"""The HTTP face of Holdfast: what API.md promises, as a Litestar application."""
