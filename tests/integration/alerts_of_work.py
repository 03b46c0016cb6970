"""Stories of alerts on the work itself: claims, leases, and the room for tasks."""

from tests.integration.alert_case import INSTANCE, OLDEST, Case, pool, shares
from tests.integration.alert_story import Fires

RENEW = "agent_task_lease_remaining_at_renew_ratio"
BACKLOG = 'agent_task_backlog_current{lane="ready"}'
BACKLOG_AT_B = 'agent_task_backlog_current{instance="b",lane="ready"}'
CLAIMED = "agent_task_claim_success_total"
EMPTY, POLLS = "agent_task_claim_empty_total", "agent_task_claim_poll_total"
EXPIRED = "agent_task_expired_running_oldest_seconds"
RESULT_REFUSED = 'agent_task_claimed_update_guard_reject_total{op="complete"}'
BEAT_REFUSED = "agent_task_heartbeat_guard_reject_total"
CANCELLED = 'agent_task_execution_total{result="cancelled",task_type="worker"}'
UNFINISHED = "agent_plan_unfinished_ratio"


OF_WORK = [
    # -- claiming -------------------------------------------------------------------------------
    Case(
        alert="ClaimStarved",
        why="a task waits and no worker claims",
        series={OLDEST: "0+15x40", CLAIMED: "7x40"},
        after="4m",
        fires=Fires("The oldest claimable task has waited for 4m 0s"),
    ),
    Case(
        alert="ClaimStarved",
        why="others are claimed, one is passed over for ten minutes",
        series={OLDEST: "0+15x60", CLAIMED: "0+15x60"},
        after="12m",
        fires=Fires("The oldest claimable task has waited for 12m 0s"),
    ),
    Case(
        alert="ClaimStarved",
        why="a queue is long and is being worked off",
        series={OLDEST: "0+15x30", CLAIMED: "0+15x30"},
        after="7m",
    ),
    Case(
        alert="ClaimSpinning",
        why="a worker polls 100 times a second and gets nothing",
        series={EMPTY: "0+1500x60", POLLS: "0+1515x60"},
        after="11m",
        fires=Fires("a answers 100 claims per second with nothing", INSTANCE),
    ),
    Case(
        alert="ClaimSpinning",
        why="1,200 workers wait 30 s each and nothing comes",
        series={EMPTY: "0+600x60", POLLS: "0+600x60"},
        after="11m",
    ),
    Case(
        alert="ClaimSpinning",
        why="under load a fifth of many claims is empty",
        series={EMPTY: "0+1500x60", POLLS: "0+7500x60"},
        after="11m",
    ),
    # -- leases ---------------------------------------------------------------------------------
    Case(
        alert="LeasesExpired",
        why="a lease expired and no worker takes the task over",
        series={EXPIRED: "0 0+15x20", f'{EXPIRED}{{instance="b"}}': "0 0+15x20"},
        after="2m",
        fires=Fires(
            "A RUNNING task's lease has been expired for 1m 45s and no worker takes it over"
        ),
    ),
    Case(
        alert="LeasesExpired",
        why="leases expire and each is taken over within half a minute",
        series={EXPIRED: "0 15 30 0 15 30 0 15 30 0 15 30"},
        after="2m30s",
    ),
    Case(
        alert="LeaseMarginLow",
        why="every tenth renewal comes with less than a fifth of the lease left",
        series=shares(RENEW, "", ("0.2", 2), 20),
        after="8m",
        fires=Fires(
            "10% of the lease renewals at a came with less than a fifth of the lease left", INSTANCE
        ),
    ),
    Case(
        alert="LeaseMarginLow",
        why="one in fifty does",
        series=shares(RENEW, "", ("0.2", 1), 50),
        after="8m",
    ),
    Case(
        alert="LeaseMarginLow",
        why="nothing is renewed at all",
        series=shares(RENEW, "", ("0.2", 0), 0),
        after="8m",
    ),
    Case(
        alert="StaleWriters",
        why="one worker reports a result for a lease that is no longer its own",
        series={RESULT_REFUSED: "0x10 1x50", BEAT_REFUSED: "0x60", CANCELLED: "0x60"},
        after="10m",
        fires=Fires("1 writes of owners that had lost their lease were refused in ten minutes"),
    ),
    Case(
        alert="StaleWriters",
        why="a plan was cancelled and its 20 workers learn it",
        series={RESULT_REFUSED: "0x10 5x50", BEAT_REFUSED: "0x10 20x50", CANCELLED: "0x10 20x50"},
        after="10m",
    ),
    # -- capacity -------------------------------------------------------------------------------
    Case(
        alert="DispatchRejecting",
        why="the pool is full and tasks wait for longer and longer",
        series=pool(8) | {OLDEST: "0+15x40"},
        after="9m",
        fires=Fires(
            "The worker pool of a takes no more tasks while claimable ones wait", INSTANCE
        ),
    ),
    Case(
        alert="DispatchRejecting",
        why="it refuses what it has claimed",
        series=pool(2) | {'agent_task_dispatch_reject_total{reason="full"}': "0+15x40"},
        after="9m",
        fires=Fires(
            "The worker pool of a takes no more tasks while claimable ones wait", INSTANCE
        ),
    ),
    Case(
        alert="DispatchRejecting",
        why="it is busy and keeps up",
        series=pool(8) | {OLDEST: "5x40"},
        after="9m",
    ),
    Case(
        alert="DispatchRejecting",
        why="an instance without an executor has no room, and tasks of others wait",
        series=pool(0, 0, 0) | {OLDEST: "0+15x40"},
        after="9m",
    ),
    Case(
        alert="DispatchRejecting",
        why="it drains",
        series=pool(2) | {'agent_task_dispatch_reject_total{reason="draining"}': "0+15x40"},
        after="9m",
    ),
    Case(
        alert="HandlersOverrun",
        why="two handlers have been running on for a minute and a half",
        series={"agent_task_worker_overrun_current": "0x4 2x20"},
        after="3m",
        fires=Fires("2 handlers at a run on although their attempt is over", INSTANCE),
    ),
    Case(
        alert="HandlersOverrun",
        why="one ran on for half a minute",
        series={"agent_task_worker_overrun_current": "0x4 1x1 0x20"},
        after="3m",
    ),
    Case(
        alert="UnfinishedBytesHigh",
        why="unfinished plans have taken nine tenths of their memory for more than a minute",
        series={UNFINISHED: "0.5x4 0.9x20", f'{UNFINISHED}{{instance="b"}}': "0.5x4 0.9x20"},
        after="3m",
        fires=Fires("Unfinished plans of holdfast take 90% of the memory that they may"),
    ),
    Case(
        alert="UnfinishedBytesHigh",
        why="a large plan came and ended within half a minute",
        series={UNFINISHED: "0.5x4 0.95x1 0.5x20"},
        after="3m",
    ),
    Case(
        alert="BacklogGrowing",
        why="more comes in than is claimed, for a quarter of an hour",
        series={BACKLOG: "0+15x80", BACKLOG_AT_B: "0+15x80"},
        after="19m",
        fires=Fires("1.14k claimable tasks wait, and there are ever more of them"),
    ),
    Case(
        alert="BacklogGrowing",
        why="10,000 tasks came at once and are worked off",
        series={BACKLOG: "0x10 10000-20x70"},
        after="14m",
    ),
]  # fmt: skip
