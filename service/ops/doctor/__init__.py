"""The doctor: gathers evidence about an instance, and judges it by pure functions."""
