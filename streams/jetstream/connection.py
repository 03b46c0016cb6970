"""The connection to NATS: bytes out, raw deliveries in, questions with a time limit, its health."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
from nats import errors

from streams.jetstream.access import URL_ALONE, Credentials
from streams.jetstream.inbox import Inbox
from streams.jetstream.messages import Deliver, Lost, Reply, render
from streams.jetstream.raw_client import RawClient, until_really_cancelled
from streams.jetstream.servers import OLDEST_VERSION, Servers, is_too_old, servers_of
from streams.log import LogUnavailable, TopologyMismatch

T = TypeVar("T")

RECONNECT_WAIT_S = 0.1
PING_INTERVAL_S = 10
PING_LOOKS = 3
HEAR_AGAIN_S = 1.0  # a server forgets a subscription that it refuses; it is asked for once more


class Connection:
    """A `RawClient` with an inbox of our own for answers, and a memory of how it is doing."""

    def __init__(self, client: RawClient, servers: Servers, access: Credentials, name: str) -> None:
        self._client = client
        self._servers = servers
        self._access = access
        self.names = access.names
        self._name = name
        self._inbox = Inbox(client.new_inbox().encode(), self.refusal_within)
        self.expect, self.collect = self._inbox.expect, self._inbox.collect
        self._up = asyncio.Event()
        self._down_since: float | None = time.monotonic()
        self._watchers: set[Callable[[], None]] = set()
        self.max_payload = client.max_payload  # the largest message with its headers, in bytes
        self.last_error: str | None = None
        self._refusal: tuple[float, str] | None = None  # when, and what this user may not do
        self._optional: dict[str, Callable[[str], None]] = {}  # by quoted subject, in lower case
        self.reconnects = 0

    @classmethod
    async def open(
        cls, url: str, *, name: str, timeout_s: float, access: Credentials = URL_ALONE
    ) -> "Connection":
        """Connect; raises LogUnavailable when there is no server within ``timeout_s``.

        Raises TopologyMismatch when the server is too old. ``url`` may name several servers,
        separated by commas. Once open it never gives up.
        """
        try:
            return await cls._open(servers_of(url), access, name, timeout_s)
        except ValueError as error:
            raise LogUnavailable(f"the URL of NATS {error}") from None

    @classmethod
    async def _open(
        cls, servers: Servers, access: Credentials, name: str, timeout_s: float
    ) -> "Connection":
        proof = access.options()
        client = RawClient()
        connection = cls(client, servers, access, name)
        try:
            async with asyncio.timeout(timeout_s):
                connecting = client.connect(
                    random.sample(servers.urls, len(servers.urls)),
                    dont_randomize=True,  # when one is left, the next one is another
                    user=servers.user,
                    password=servers.password,
                    token=servers.token,
                    name=name,
                    error_cb=connection._on_error,
                    disconnected_cb=connection._on_disconnected,
                    reconnected_cb=connection._on_reconnected,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]
                    connect_timeout=2,
                    ping_interval=PING_INTERVAL_S,
                    **proof,
                )
                await until_really_cancelled(connecting)
                await client.listen(connection._inbox.subject, connection._inbox.deliver)
        except asyncio.CancelledError:
            client.abort()
            await client.close()
            raise
        except (TimeoutError, OSError, errors.Error) as error:
            client.abort()
            await client.close()
            reason = connection.last_error or str(error) or type(error).__name__
            raise LogUnavailable(
                f"no NATS server at {','.join(servers.urls)} within {timeout_s:g} s: {reason}"
            ) from error
        version = client.server_version
        if is_too_old(version):
            await client.close()
            oldest = ".".join(map(str, OLDEST_VERSION))
            raise TopologyMismatch(f"nats-server {version} is too old, {oldest} or newer is needed")
        connection._rise()
        return connection

    @property
    def connected(self) -> bool:
        """Whether the server is there as far as this end knows."""
        return self._client.is_connected

    @property
    def server(self) -> str:
        """The address of the server that it is connected to, "" while there is none."""
        url = self._client.connected_url
        return f"{url.hostname}:{url.port}" if url is not None else ""

    @property
    def takes_anyone(self) -> bool:
        """Whether the server lets clients in that prove nothing, as far as it says."""
        return self._client.takes_anyone

    @property
    def down_s(self) -> float:
        """For how many seconds the server has been gone; 0 while it is there."""
        return 0.0 if self._down_since is None else time.monotonic() - self._down_since

    async def until_connected(self, timeout_s: float) -> bool:
        """Wait for the server to be there; False when ``timeout_s`` went by first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change`` at every loss and return of the server; returns how to stop it."""
        self._watchers.add(on_change)
        return lambda: self._watchers.discard(on_change)

    async def answers_ping(self, within_s: float) -> bool:
        """Whether the server answers a PING in time; a line that is lost or made anew says yes."""
        lost = self.reconnects
        try:
            pong = await self._client.ping()
        except (errors.Error, OSError):
            return True
        for _ in range(PING_LOOKS):  # a loop that was held up misses one of them, not all
            await asyncio.wait([pong], timeout=within_s / PING_LOOKS)
            if pong.done():
                return True
        return not self.connected or self.reconnects != lost

    @property
    def others(self) -> list[str]:
        """The URLs of the servers that it could be connected to instead."""
        return self._client.others

    @asynccontextmanager
    async def beside(self, url: str, timeout_s: float) -> AsyncGenerator["Connection"]:
        """A connection to the server at ``url`` for a few questions. Raises LogUnavailable."""
        servers = msgspec.structs.replace(self._servers, urls=(url,))
        try:
            connection = await Connection._open(servers, self._access, self._name, timeout_s)
        except ValueError as error:
            raise LogUnavailable(str(error)) from None
        try:
            yield connection
        finally:
            await connection.close()

    def leave(self, reason: str, towards: str | None = None) -> None:
        """Connect to another server, if there is one; ``towards`` is the URL to try first."""
        if self._client.drop(towards):
            self.last_error = f"left a server: {reason}"

    def send(self, commands: bytes) -> None:
        """Hand rendered commands to the socket; raises ConnectionError when there is none."""
        self._client.write(commands)

    async def request(self, subject: str, payload: bytes = b"", *, timeout_s: float) -> Reply:
        """Ask once; raises LogUnavailable without a responder, or when no answer came in time."""
        reply, answer = self.expect(timeout_s)
        try:
            self.send(render(subject.encode(), reply, b"", payload))
        except ConnectionError as error:
            answer.cancel()
            raise LogUnavailable(f"NATS is not connected: {self.last_error}") from error
        match await answer:
            case Lost(reason):
                raise LogUnavailable(f"no answer to {subject}: {reason}")
            case Reply() as found if found.status == b"503":
                of_domain = " or has no such domain (nats.domain)" if self.names.domain else ""
                raise LogUnavailable(
                    f"nothing answers {subject}: JetStream is not ready{of_domain}"
                )
            case Reply() as found:
                return found

    async def listen(self, subject: str, deliver: Deliver) -> int:
        """See `RawClient.listen`; survives reconnects. Raises LogUnavailable."""
        return await _or_unavailable(self._client.listen(subject, deliver))

    async def listen_if_allowed(
        self, subject: str, deliver: Deliver, on_refused: Callable[[str], None]
    ) -> None:
        """`listen`, and send there; where this user may not, ``on_refused`` gets the reason."""
        self._optional[f'"{subject}"'.lower()] = on_refused
        await self.listen(subject, deliver)

    async def unlisten(self, handle: int) -> None:
        """Undo `listen`."""
        await _or_unavailable(self._client.unlisten(handle))

    def new_inbox(self) -> str:
        """A new subject that no other client uses."""
        return self._client.new_inbox()

    async def close(self) -> None:
        """Close the socket; callers that still wait for an answer get Lost."""
        try:
            await self._client.close()
        except asyncio.CancelledError:
            # During a reconnect nats-py cancels a future that it then awaits itself.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        finally:
            self._inbox.abandon("the connection was closed")

    def _rise(self) -> None:
        self.max_payload = self._client.max_payload
        self._down_since = None
        self._up.set()

    async def _on_error(self, error: Exception) -> None:
        said = str(error) or type(error).__name__
        if "permissions violation" not in said.lower():
            self.last_error = said
            return
        for subject, on_refused in self._optional.items():
            if subject in said.lower():
                on_refused(said)
                return
        self._refusal = (time.monotonic(), said)
        if "subscription" in said.lower():
            asyncio.get_running_loop().call_later(HEAR_AGAIN_S, self._hear_again)

    def _hear_again(self) -> None:
        try:
            self.send(self._client.subscriptions())
        except ConnectionError:
            return  # a new connection subscribes to everything

    def refusal_within(self, seconds: float) -> str:
        """What the server has refused lately, for the error of a question without an answer."""
        if self._refusal is None or self._refusal[0] < time.monotonic() - seconds - HEAR_AGAIN_S:
            return ""
        return f"; the server refuses it: {self._refusal[1]}"

    async def _on_disconnected(self) -> None:
        self._up.clear()
        if self._down_since is None:
            self._down_since = time.monotonic()
        self.last_error = self.last_error or "the connection was lost"
        self._inbox.abandon("the connection was lost")
        self._tell()

    async def _on_reconnected(self) -> None:
        self.reconnects += 1
        self.last_error = None
        self._rise()
        self._tell()

    def _tell(self) -> None:
        for on_change in list(self._watchers):
            on_change()


async def _or_unavailable(wanted: Awaitable[T]) -> T:
    try:
        return await wanted
    except errors.Error as error:
        raise LogUnavailable(f"NATS is not connected: {error}") from error
