"""What may happen, what did happen, and where it is kept."""
