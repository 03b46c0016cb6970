"""Reading one plan of a large log: the server never has to look beyond the plan's last message."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence

import pytest

from streams.jetstream.direct_get import DirectGetPage
from streams.jetstream.log import JetStreamLog
from streams.jetstream.reader import Reader
from streams.log import LogUnavailable
from tests.contract.drafts import PAUSED, STARTED, on_plan, on_task, won
from tests.contract.wire import Wire

TASKS, FACTS = 3, 4
OF_TASKS = "plans.p.>"
QUESTION = re.compile(rb"(?:DIRECT\.GET|STREAM\.MSG\.GET)\.PLANS .*?(\{[^\r]*\})", re.DOTALL)

Read = Callable[[JetStreamLog], Awaitable[Sequence[object]]]


@pytest.fixture
async def questions(wire: Wire) -> list[dict[str, object]]:
    """What is asked about messages from now on."""
    asked: list[dict[str, object]] = []

    def note(write: Callable[[bytes], None], commands: bytes) -> None:
        asked.extend(json.loads(each) for each in QUESTION.findall(commands))
        write(commands)

    wire.sending = note
    return asked


async def fill(log: JetStreamLog) -> None:
    """A plan whose facts stand among those of another one."""
    await won(log, on_plan("before"))
    await won(log, on_plan("p"))
    for task in range(TASKS):
        await won(log, on_task(f"t{task}", 0, *([STARTED] * FACTS)))
        await won(log, on_task(f"t{task}", plan_id="before"))


READS: dict[str, Read] = {
    "whole": lambda log: log.read("p"),
    "a page": lambda log: log.scan(0, 100, "p"),
    "a first page": lambda log: log.scan(0, 5, "p"),
    "a later page": lambda log: log.scan(7, 5, "p"),
    "the end": lambda log: log.scan(1_000, 100, "p"),
    "as stored": lambda log: log.messages("p", 0, 100),
    "a later page as stored": lambda log: log.messages("p", 9, 100),
    "the end as stored": lambda log: log.messages("p", 1_000, 100),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
async def test_tasks_are_read_from_the_first_message_on_and_no_more_than_there_are(
    log: JetStreamLog, questions: list[dict[str, object]], read: Read
) -> None:
    await fill(log)
    questions.clear()
    await read(log)
    of_tasks = [each for each in questions if each.get("next_by_subj") == OF_TASKS]
    assert of_tasks
    for each in of_tasks:
        assert each["seq"] == 1
        assert isinstance(each["batch"], int)
        assert each["batch"] <= TASKS * FACTS


async def test_a_plan_without_facts_of_tasks_is_not_looked_for(
    log: JetStreamLog, questions: list[dict[str, object]]
) -> None:
    await won(log, on_plan("p"))
    questions.clear()
    assert [fact.sequence for fact in await log.scan(0, 100, "p")] == [1]
    assert await log.scan(1, 100, "p") == []
    assert len(await log.read("p")) == 1
    assert not [each for each in questions if each.get("next_by_subj") == OF_TASKS]


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_reading_a_plan_that_is_written_misses_nothing(log: JetStreamLog, limit: int) -> None:
    own = await won(log, on_plan("p"))

    async def write() -> int:
        """Facts of the plan and of its tasks in turn; the last of them."""
        last = own
        for number in range(60):
            await won(log, on_task(f"t{number}"))
            last = await won(log, on_plan("p", last, PAUSED))
        return last

    writing = asyncio.create_task(write())
    found: list[int] = []
    while not (writing.done() and found and found[-1] >= writing.result()):
        found += [each.sequence for each in await log.scan(found[-1] if found else 0, limit, "p")]
    assert found == [fact.sequence for fact in await log.read("p")] == list(range(1, 122))


@pytest.mark.parametrize("lagging_answers", [2, 1_000])
async def test_what_a_lagging_replica_does_not_have_of_a_plan_is_not_passed_over(
    log: JetStreamLog, monkeypatch: pytest.MonkeyPatch, lagging_answers: int
) -> None:
    own = await won(log, on_plan("p"))
    await won(log, on_task("a"))
    await won(log, on_task("b"))
    await won(log, on_plan("p", own, PAUSED))
    page_from, answers = Reader.page_from, 0

    async def lagging(self: Reader, subject: str, start: int, limit: int) -> DirectGetPage:
        nonlocal answers
        page = await page_from(self, subject, start, limit)
        answers += subject == OF_TASKS
        if subject != OF_TASKS or answers > lagging_answers:
            return page
        return DirectGetPage(page.replies[:-1], more=False)

    monkeypatch.setattr(Reader, "page_from", lagging)
    assert [fact.sequence for fact in await log.scan(0, 100, "p")] == [1, 2]
    if lagging_answers == 2:
        assert [fact.sequence for fact in await log.scan(2, 100, "p")] == [3, 4]
    else:
        with pytest.raises(LogUnavailable, match="do not get beyond sequence 2"):
            await log.scan(2, 100, "p")
