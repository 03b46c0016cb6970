"""The life cycle that ARCHITECTURE.md shows is drawn from the table, row by row."""

from docs.life_cycle import diagram, redrawn
from streams.plan.lifecycle import TRANSITIONS, Transition


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


def test_a_page_keeps_what_stands_around_the_drawing() -> None:
    page = redrawn("above\n<!-- lifecycle:begin -->old<!-- lifecycle:end -->\nbelow")
    assert page.startswith("above\n<!-- lifecycle:begin -->\n```mermaid\n")
    assert page.endswith("<!-- lifecycle:end -->\nbelow")
    assert "old" not in page
