"""The questions that an operator asks, one pure module each."""
