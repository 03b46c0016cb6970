"""Demonstrations for a person at a terminal: real processes, a real fault, and its traces."""
