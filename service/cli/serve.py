"""`holdfast serve`: runs an instance until it is asked to stop; an empty log gets the sample."""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

import click
import structlog
import uvloop
from msgspec.structs import replace

from service import sample
from service.app import ALL_ROLES, Instance, Role, running
from service.cli.client import UNREACHABLE, complain
from service.cli.log_access import CANNOT_BE_HAD
from service.cli.options import SETTINGS_HELP, command, with_settings
from service.cli.plan_ends import PlanEnds
from service.cli.stopping import StopRequests
from service.http.server import PortBusy
from service.runtime.child_process import hide_memory
from service.runtime.standard_streams import drop_what_cannot_be_written
from service.runtime.tuning import (
    allow_streams,
    collect_seldom,
    give_large_blocks_back,
    switch_often,
)
from service.sample.story import Story
from service.settings.config import Settings
from service.settings.reloading import Reloading
from service.signals import logs
from service.signals.log_lines import wants_text
from service.signals.terminal_lines import TerminalLines

log = structlog.get_logger("holdfast.serve")

Say = Callable[[str], None]


def _roles(_: click.Context, __: click.Parameter, text: str) -> frozenset[Role]:
    roles = [role.strip() for role in text.split(",")]
    if unknown := sorted(set(roles).difference(ALL_ROLES)):
        known = ", ".join(sorted(ALL_ROLES))
        raise click.BadParameter(f"{unknown[0]!r} is no role; there are {known}")
    return frozenset(cast("list[Role]", roles))


@command(
    "serve",
    "run an instance until Ctrl-C or SIGTERM",
    more=SETTINGS_HELP,
    examples="holdfast serve\n"
    "holdfast serve --port 8080 --data-dir /var/lib/holdfast\n"
    "NATS_URL=nats://a:4222,nats://b:4222 holdfast serve --roles api,daemons",
)
@click.option(
    "--roles",
    callback=_roles,
    default="api,executor,daemons",
    metavar="LIST",
    help="what this instance does, separated by commas (api,executor,daemons)",
)
@click.option("--host", help="where the API listens (127.0.0.1)")
@click.option("--port", metavar="PORT", help="where the API listens; 0: any (8000)")
@with_settings
def serve(read: Callable[[], Settings], roles: frozenset[Role]) -> int:
    """Run an instance to its end; answers the exit code."""
    settings = read()
    handler = logs.configure(settings.executor.instance_id, settings.log)
    try:
        return run(settings, roles, read)
    except (PortBusy, *CANNOT_BE_HAD) as error:
        handler.flush()
        return complain(error, UNREACHABLE)
    finally:
        handler.flush()


def run(
    settings: Settings,
    roles: Iterable[Role] = ALL_ROLES,
    read_again: Callable[[], Settings] | None = None,
) -> int:
    """Run an instance until it is asked to stop; answers the process's exit code.

    At a SIGHUP that no closed terminal caused, ``read_again`` gives the settings as they are now;
    what can change at run time does.
    """
    drop_what_cannot_be_written()
    os.umask(0o077)  # what an instance writes is its account's own
    with suppress(OSError):
        hide_memory()  # keys and passwords are in it
    lines = TerminalLines()
    try:
        return uvloop.run(_serve(settings, frozenset(roles), read_again, lines))
    finally:
        lines.flush()


def _within_open_files(settings: Settings) -> Settings:
    """The settings with no more event streams than the process may open files for."""
    wanted = settings.sse.max_connections
    if (room := allow_streams(wanted)) == wanted:
        return settings
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    log.warning("few_open_files", limit=limit, sse_max_connections=wanted, streams_allowed=room)
    return replace(settings, sse=replace(settings.sse, max_connections=room))


def _say_hello(instance: Instance, say: Say) -> None:
    settings = instance.settings
    where = instance.http_url or "no HTTP (without the role api)"
    nats_url = instance.shown_nats_url
    look = " (open it in a browser)" if settings.ui.enabled and instance.http_url else ""
    say(f"Holdfast serves {where}{look}, its log is {nats_url}, its data is in {settings.data_dir}")
    facts = instance.core.board.sequence
    if facts:
        say(f"The log holds {facts:,} facts. Follow what comes: curl -N {where}/v1/events")


def _log_serving(instance: Instance) -> None:
    settings, executor = instance.settings, instance.executor
    log.info(
        "serving",
        url=instance.http_url,
        nats=instance.shown_nats_url,
        roles=sorted(instance.roles),
        kinds=sorted(executor.handlers) if executor else [],
        workers=settings.executor.worker.core_size if executor else 0,
    )
    if os.geteuid() == 0:
        log.warning("runs_as_root", advice="start it as an account of its own")


def _say_ends_of_plans(instance: Instance, say: Say, *, but: str = "") -> None:
    """On a log for people: a line for each plan that ends from now on."""
    if wants_text(sys.stderr, instance.settings.log.format):
        ends = PlanEnds(instance.core.board.knows, say, but=but)
        instance.core.projector.listeners.add("plan_ends", ends.folded)


async def _show_sample(instance: Instance, say: Say) -> None:
    """Submit the sample plan and tell its story."""
    say("\nThe log is empty, so here is a sample plan: it counts words in this checkout's files.")
    listeners = instance.core.projector.listeners

    def ended() -> None:
        listeners.remove("sample_story")
        page = f"{instance.http_url}/#/plans/{sample.PLAN_ID}\n" + " " * 13
        page = page if instance.settings.ui.enabled else ""
        say(f"\nLook at it:  {page}curl {instance.http_url}/v1/plans/{sample.PLAN_ID}")
        say("Ctrl-C ends it; the log stays.")

    listeners.add("sample_story", Story(sample.PLAN_ID, say, ended).folded)
    plan = await asyncio.to_thread(sample.sample_plan, Path.cwd())
    await instance.core.submit(
        sample.PLAN_ID, plan, replace(instance.core.self_origin, actor="sample")
    )


async def _show_first(instance: Instance, say: Say) -> None:
    """On an empty log the sample and its story, or how to begin where it cannot run."""
    settings = instance.settings
    if instance.core.board.sequence or not settings.sample.enabled:
        _say_ends_of_plans(instance, say)
    elif "executor" in instance.roles and sample.is_allowed(settings.executor.command):
        _say_ends_of_plans(instance, say, but=sample.PLAN_ID)
        await _show_sample(instance, say)
    else:
        say("The log is empty. Submit a plan: holdfast submit FILE --follow")
        _say_ends_of_plans(instance, say)


async def _serve(
    settings: Settings,
    roles: frozenset[Role],
    read_again: Callable[[], Settings] | None,
    lines: TerminalLines,
) -> int:
    stop = StopRequests()
    starting = asyncio.current_task()

    def end_the_start(_: asyncio.Future[str]) -> None:
        if starting is not None:
            starting.cancel()  # a start may wait long for a log that is not there

    stop.asked.add_done_callback(end_the_start)
    give_large_blocks_back()
    try:
        async with running(_within_open_files(settings), roles) as instance:
            starting = None
            collect_seldom()
            switch_often()
            if read_again is not None:
                reloading = Reloading(settings, read_again, instance.core.audit.apply)
                stop.reload_with(partial(_reload, reloading, instance))
            return await _serve_until(stop.asked, instance, lines)
    except asyncio.CancelledError:
        if not stop.asked.done():
            raise
        log.info("stopped_while_starting", reason=stop.asked.result())
        return 0


def _reload(reloading: Reloading, instance: Instance) -> None:
    """Read the settings and the tokens file again."""
    reloading.reload()
    if instance.tokens is not None:
        instance.tokens.read_again()


async def _serve_until(stop: asyncio.Future[str], instance: Instance, lines: TerminalLines) -> int:
    """Serve until asked to stop (0) or until something vital has died (1)."""
    _say_hello(instance, lines.say)
    await asyncio.to_thread(lines.flush)  # the log's lines come from a thread of their own
    _log_serving(instance)
    await _show_first(instance, lines.say)
    await asyncio.wait([stop, instance.died], return_when=asyncio.FIRST_COMPLETED)
    if instance.died.done():
        log.critical("died", reason=instance.died.result())
        return 1
    log.info("stopping", reason=stop.result())
    if stop.result() == signal.SIGINT.name:
        drain_s = instance.settings.executor.drain_s
        lines.say(f"\nTasks that run may end within {drain_s:g} s. Ctrl-C again ends at once.")
    return 0
