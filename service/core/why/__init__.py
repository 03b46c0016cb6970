"""Answers why a task or a plan does not run, from the board alone (AGENTS §8)."""

from service.core.why.plans import why_plan
from service.core.why.reasons import Code, Reason, Surroundings, Why
from service.core.why.tasks import why_task

__all__ = ["Code", "Reason", "Surroundings", "Why", "why_plan", "why_task"]
