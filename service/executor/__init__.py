"""The executor claims tasks that it has handlers for, runs them and reports how they ended."""
