"""What is wrong, found from the outside: evidence is gathered, pure questions judge it."""
