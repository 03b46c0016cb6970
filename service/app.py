"""The composition root: puts one instance together, starts it, watches it, takes it down in order.

Start: data folder → log (embedded or by URL) → read models → board, caught up → HTTP → executor →
daemons. Stop is the same backwards: let tasks end, say goodbye to streams, stop serving, write what
is pending, close the log. A loop that dies ends the process, visibly: an instance that works in
part is worse than a restarted one.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Literal

import msgspec
import structlog

from service import VERSION
from service.core.admission import CheckInput
from service.core.bridge import Bridge
from service.core.catching_up import caught_up
from service.core.core import Core
from service.core.opening import log_watch, open_core
from service.daemons.of_an_instance import daemons_of, loops_of
from service.daemons.schedulers import Schedulers
from service.executor.executor import Executor
from service.executor.handlers.inputs import input_check
from service.executor.handlers.registry import load_handlers
from service.executor.handlers.secrets import Secrets
from service.http.access import Access
from service.http.refused_tokens import RefusedTokens
from service.http.server import HttpServer, Listening
from service.http.starting import Starting, StartProgress
from service.ops.doctor.sources.live import Doctor
from service.ops.health import Health
from service.ops.last_hour import Minutes
from service.ops.operations import Operations
from service.principals.tokens import Tokens
from service.runtime.data_folder import READ_MODELS, DataFolder
from service.runtime.masking import KNOWN
from service.runtime.nats_server.embedded import EmbeddedServer
from service.runtime.supervision import Supervision, guard
from service.settings.config import Settings
from service.settings.stream_bounds import stream_bounds
from service.signals import logs
from service.signals.loop_lag import Lag, Watch
from service.signals.metrics.appends import LogObserver
from service.signals.metrics.registry import Metrics
from service.signals.tracing.exporting import recorder_of
from service.signals.tracing.spans import Recorder
from service.snapshots.fetching import fetch_limits, fetch_read_models
from service.snapshots.store import store_of
from streams.jetstream.log import JetStreamLog
from streams.jetstream.servers import servers_of, without_password
from streams.log import LogFull, LogUnavailable

Role = Literal["api", "executor", "daemons"]
ALL_ROLES: frozenset[Role] = frozenset({"api", "executor", "daemons"})

KILLED = "the process that held the lease was killed; another one has its data folder"
CONNECT_TIMEOUT_S = 30.0

log = structlog.get_logger("holdfast.app")


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One running instance; ``http_url`` is empty without the role ``api``.

    ``nats_url`` may hold a password, ``shown_nats_url`` is for printing.
    """

    settings: Settings
    roles: frozenset[Role]
    core: Core
    bridge: Bridge
    nats_url: str
    shown_nats_url: str
    http_url: str
    embedded: EmbeddedServer | None
    executor: Executor | None
    schedulers: Schedulers
    supervision: Supervision
    tokens: Tokens | None = None

    @property
    def died(self) -> asyncio.Future[str]:
        """Resolves, with the reason, when a vital loop has ended."""
        return self.supervision.died


@asynccontextmanager
async def running(
    settings: Settings, roles: frozenset[Role] = ALL_ROLES
) -> AsyncGenerator[Instance]:
    """One instance from start to orderly end; ``Instance.died`` resolves if a vital loop ends.

    Raises ConfigError for a tokens file that cannot be used, DataFolderBusy, EmbeddedServerError,
    LogUnavailable, TopologyMismatch, PortBusy.
    """
    metrics = Metrics(version=VERSION)
    tokens_file = settings.auth.tokens_file
    tokens = Tokens(tokens_file) if tokens_file is not None else None
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(
            DataFolder.acquire(settings.data_dir, settings.executor.instance_id)
        )
        spans = _spans(settings, stack)
        embedded = await _embedded(settings, stack)
        nats_url = embedded.url if embedded else settings.nats.url
        shown_url = embedded.address if embedded else without_password(nats_url)
        _know_secrets(settings, nats_url)
        folder.announce(nats_url=shown_url)
        writes = LogObserver(metrics)
        source = await _connect(settings, nats_url, writes, stack)
        listening = _listening(settings, roles, stack)
        async with _starting(listening, settings) as tell:
            is_fetched = await _fetched(settings, source, tell)
            check_input = _input_check(settings, roles)
            core, audit_tail = await open_core(
                settings, source, metrics, spans, check_input, stack, is_fetched=is_fetched
            )
            supervision = Supervision()
            died = supervision.died
            lag = Lag("api", "api", metrics)
            stack.callback(_watch_line(source, core, writes))
            guard(
                stack,
                died,
                projector=core.projector.run(),
                flush=core.projector.flush_forever(),
                lag=lag.sample_forever(),
                audit=core.audit.run(),
                audit_tail=audit_tail.run(),
            )
            await caught_up(core, (await source.settled()).head, died, tell)
        guard(
            stack,
            died,
            claim_poll=core.claim_queue.poll_forever(),
            feed=core.feed.run(),
            log_identity=log_watch(core).run(),
            threads=supervision.look_forever(),
        )
        await _release_leases_of_the_dead(core, folder)
        logs.watch_writers(supervision)
        if embedded is not None:
            embedded.supervised_by(supervision)
        bridge = Bridge(core, asyncio.get_running_loop())
        daemons = await daemons_of(core, embedded, writes, stack, for_the_log="daemons" in roles)
        pool_size = settings.scheduling.daemon.pool_size
        instance = Instance(
            settings=settings,
            roles=roles,
            core=core,
            bridge=bridge,
            nats_url=nats_url,
            shown_nats_url=shown_url,
            http_url=listening.url if listening else "",
            embedded=embedded,
            executor=_executor(settings, roles, core, bridge, supervision),
            schedulers=Schedulers(daemons, pool_size, metrics, supervision),
            supervision=supervision,
            tokens=tokens,
        )
        started = asyncio.Event()
        operations = _operations(instance, source, lag, started)
        guard(stack, died, history=operations.doctor.history.sample_forever())
        if tokens is not None:
            guard(stack, died, tokens=tokens.run())
        if listening is not None:
            access = Access(tokens, RefusedTokens(core.metrics, core.audit))
            _serve(HttpServer(core, operations, listening, access), instance, stack)
        await _start_roles(instance, stack)
        if "daemons" in roles:
            guard(stack, died, **loops_of(core, source, embedded))
        started.set()
        _watch_loops(instance, lag, stack)
        folder.announce(nats_url=shown_url, http_url=instance.http_url)
        stack.callback(supervision.close)  # the first thing done at the end
        yield instance


async def _fetched(
    settings: Settings, source: JetStreamLog, tell: Callable[[StartProgress], None]
) -> bool:
    """Whether a snapshot was put where there were no read models. Raises LogUnavailable."""
    if (open_store := store_of(settings)) is None:
        return False
    path, limits = settings.data_dir / READ_MODELS, fetch_limits(settings.snapshots)
    return await fetch_read_models(path, source, source.settled, open_store, tell, limits)


async def _release_leases_of_the_dead(core: Core, folder: DataFolder) -> None:
    """Free what earlier holders of the data folder held: its lock proves that they have ended."""
    for owner in folder.holder.dead:
        try:
            released = await core.release_leases_of(owner, KILLED, core.self_origin)
        except (LogUnavailable, LogFull) as error:
            log.warning("leases_not_released", owner=owner, error=str(error))
            return
        if released:
            log.warning("leases_of_killed_process_released", owner=owner, tasks=len(released))
    folder.forget_dead()


def _know_secrets(settings: Settings, nats_url: str) -> None:
    """Let no line and no fact hold what opens the log or stands in `secrets`."""
    for url in filter(None, (nats_url, settings.nats.retention_url)):
        servers = servers_of(url)
        KNOWN.know(filter(None, (servers.password, servers.token)))
    Secrets(settings.secrets)


def _watch_loops(instance: Instance, api: Lag, stack: AsyncExitStack) -> None:
    watch = Watch(partial(_lags, instance, api))
    watch.start(instance.supervision)
    stack.callback(watch.stop)


def _lags(instance: Instance, api: Lag) -> list[Lag]:
    """How late every loop of the instance is, as far as it has started."""
    executor = instance.executor
    return [api, *instance.schedulers.lags(), *(executor.lags() if executor else ())]


def _operations(
    instance: Instance, source: JetStreamLog, api: Lag, started: asyncio.Event
) -> Operations:
    """What operators see of the instance, from before everything has ``started``."""
    lags = partial(_lags, instance, api)

    def schedulers() -> Schedulers | None:
        return instance.schedulers if started.is_set() else None

    def executor() -> Executor | None:
        return instance.executor if started.is_set() else None

    health = Health(
        instance.core,
        source,
        instance.embedded,
        version=VERSION,
        roles=instance.roles,
        lags=lags,
        schedulers=schedulers,
        executor=executor,
    )
    doctor = Doctor(
        instance.core,
        url=lambda: instance.http_url,
        nats_url=instance.shown_nats_url,
        schedulers=schedulers,
        executor=executor,
        lags=lags,
        readiness=health.readiness,
        log_takes_anyone=lambda: source.takes_anyone,
        database_path=instance.settings.data_dir / READ_MODELS,
    )
    minutes = Minutes(instance.core.board)
    listeners = instance.core.projector.listeners
    listeners.add_for_batches("last_hour", minutes.folded)
    return Operations(health, doctor, minutes)


async def _embedded(settings: Settings, stack: AsyncExitStack) -> EmbeddedServer | None:
    if settings.nats.url:
        return None
    server = EmbeddedServer(
        settings.data_dir, settings.nats.port, staging_dir=settings.nats.staging_dir
    )
    await server.start()
    stack.push_async_callback(server.stop)
    return server


async def _connect(
    settings: Settings, nats_url: str, writes: LogObserver, stack: AsyncExitStack
) -> JetStreamLog:
    if settings.nats.url:
        log.info("waiting_for_log", at_most_s=CONNECT_TIMEOUT_S)
    source = await JetStreamLog.connect(
        nats_url,
        replicas=settings.nats.replicas,
        connect_timeout_s=CONNECT_TIMEOUT_S,
        name=f"holdfast {settings.executor.instance_id}",
        observer=writes,
        access=settings.nats.access,
        bounds=stream_bounds(settings),
    )
    stack.push_async_callback(source.close)
    return source


def _spans(settings: Settings, stack: AsyncExitStack) -> Recorder | None:
    recorder = recorder_of(settings, VERSION)
    if recorder is not None:
        stack.push_async_callback(recorder.close)
    return recorder


def _watch_line(source: JetStreamLog, core: Core, writes: LogObserver) -> Callable[[], None]:
    """Tell the core when the line to the log is lost and when it is back, until called."""

    def changed() -> None:
        error = source.last_error or "the connection was lost"
        core.conditions.log_answers("connection", None if source.connected else error)
        if source.connected:
            writes.reconnected()

    return source.watch(changed)


def _listening(
    settings: Settings, roles: frozenset[Role], stack: AsyncExitStack
) -> Listening | None:
    if "api" not in roles:
        return None
    listening = Listening(settings.http)
    stack.callback(listening.socket.close)
    return listening


@asynccontextmanager
async def _starting(
    listening: Listening | None, settings: Settings
) -> AsyncGenerator[Callable[[StartProgress], None]]:
    """What to tell how far the start is; probes are answered with it until the block ends."""
    if listening is None:
        yield lambda _: None
        return
    starting = Starting(listening, settings)
    try:
        yield starting.tell
    finally:
        await starting.stop()


def _serve(server: HttpServer, instance: Instance, stack: AsyncExitStack) -> None:
    guard(stack, instance.died, http=server.serve())
    stack.push_async_callback(server.stop)
    stack.callback(instance.core.feed.close)


async def _start_roles(instance: Instance, stack: AsyncExitStack) -> None:
    stack.callback(instance.core.claim_queue.close)
    instance.schedulers.start(instance.bridge)
    stack.push_async_callback(instance.schedulers.stop)
    if (executor := instance.executor) is not None:
        # Its hosts take a moment to start; until then it asks for nothing.
        instance.core.claim_queue.demand.asked(executor.handlers, instance.core.now())
        await executor.start()
        drain_s = instance.settings.executor.drain_s
        stack.push_async_callback(executor.drain, drain_s)


def _executor(
    settings: Settings, roles: frozenset[Role], core: Core, bridge: Bridge, supervision: Supervision
) -> Executor | None:
    if "executor" not in roles:
        return None
    return Executor(
        settings, bridge, core.metrics, core.audit, core.instance_id, core.spans, supervision
    )


def _input_check(settings: Settings, roles: frozenset[Role]) -> CheckInput:
    """What inputs must look like; an instance that runs no tasks knows the built-in kinds."""
    executor = settings.executor
    runs_tasks = "executor" in roles
    if not runs_tasks:  # the endpoints and command lines of those that do are not known here
        return input_check(load_handlers(), judge_by_settings=False)
    return input_check(load_handlers(executor, Secrets(settings.secrets)))
