"""Principals: who a token belongs to, what it permits, and the file that holds all tokens."""
