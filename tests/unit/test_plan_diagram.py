"""The life cycle that ARCHITECTURE.md shows is the one that the code obeys."""

from pathlib import Path

from streams.plan.diagram import BEGIN, END, block, diagram
from streams.plan.lifecycle import TRANSITIONS, Transition

ARCHITECTURE = Path(__file__).parents[2] / "ARCHITECTURE.md"


def test_the_document_shows_the_table() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    shown = text[text.index(BEGIN) : text.index(END) + len(END)]
    assert shown == block(), "run: python -m streams.plan.diagram"


def test_every_row_is_drawn() -> None:
    drawn = diagram()
    for row in TRANSITIONS:
        trigger = f"({row.trigger})" if row.derived else row.trigger
        arrows = [
            line.strip()
            for line in drawn.splitlines()
            if line.strip().startswith(f"{row.source} --> {row.target}: ")
        ]
        assert len(arrows) == 1
        assert trigger in arrows[0].split(": ", 1)[1].split(" / ")


def test_a_new_row_changes_the_drawing() -> None:
    assert diagram((*TRANSITIONS, Transition("SKIPPED", "forgiven", "READY"))) != diagram()
