"""Three nats-servers that replicate one log, and what their monitoring ports say about it."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.cluster.links import Links
from tests.cluster.nats_node import NatsNode
from tests.cluster.ports import HOST, NUMBERS
from tests.ports import free_ports

WHOLE_S = 60.0
POLL_S = 0.1
ANSWER_S = 2.0
STREAM = "PLANS"

Json = dict[str, Any]


class NatsCluster:
    """The nodes and the links; `start` returns when every node is there and current."""

    def __init__(self, folder: Path, more: str = "") -> None:
        """``more`` is added to the configuration of each node."""
        ports = free_ports(9)
        self.nodes = {
            n: NatsNode(n, folder, (ports[n - 1], ports[n + 2], ports[n + 5]), more)
            for n in NUMBERS
        }
        self.links = Links(
            {n: node.client_port for n, node in self.nodes.items()},
            {n: node.route_port for n, node in self.nodes.items()},
        )
        for n, node in self.nodes.items():
            node.configure({m: self.links.ports[f"r{n}{m}"] for m in NUMBERS if m != n})
        self._client = httpx.AsyncClient(timeout=ANSWER_S)

    async def start(self) -> None:
        """Start all nodes and wait for them."""
        for node in self.nodes.values():
            node.start()
        await self.await_whole()

    async def stop(self) -> None:
        """End the nodes and the links."""
        await self._client.aclose()
        for node in self.nodes.values():
            node.kill()
        self.links.stop()

    @property
    def client_urls(self) -> list[str]:
        """The nodes themselves, past the proxy."""
        return [f"nats://{HOST}:{node.client_port}" for node in self.nodes.values() if node.answers]

    def urls_for(self, instance: int) -> str:
        """What an instance is given as ``nats.url``: each node through a link of its own."""
        return ",".join(f"nats://{HOST}:{self.links.ports[f'c{instance}{n}']}" for n in NUMBERS)

    async def await_whole(self, within_s: float = WHOLE_S) -> None:
        """Until every node is healthy and every replica of every stream is current."""
        async with asyncio.timeout(within_s):
            while not await self.is_whole():
                await asyncio.sleep(POLL_S)

    async def is_whole(self) -> bool:
        """Whether every node answers, is healthy and is seen as current by the leader."""
        if not all(node.answers for node in self.nodes.values()):
            return False
        views = await self._views()
        if len(views) < len(NUMBERS) or not all(_is_whole(n, view) for n, view in views.items()):
            return False
        return all([await self._healthy(node) for node in self.nodes.values()])

    async def leader(self, stream: str = STREAM) -> int:
        """The node that leads the stream in the view of most; waits until there is one."""
        async with asyncio.timeout(WHOLE_S):
            while True:
                votes = Counter(
                    leader
                    for view in (await self._views()).values()
                    for each in _streams(view)
                    if each["name"] == stream and (leader := each.get("cluster", {}).get("leader"))
                )
                if votes:
                    return int(votes.most_common(1)[0][0].removeprefix("n"))
                await asyncio.sleep(POLL_S)

    async def leaders(self) -> dict[int, str]:
        """Which node leads the log in the view of each that answers; empty where it knows none."""
        views = await self._views("")
        return {
            node: each.get("cluster", {}).get("leader", "")
            for node, view in views.items()
            for each in _streams(view)
            if each["name"] == STREAM
        }

    async def stored(self, stream: str) -> dict[int, int]:
        """How many bytes of the stream each node stores."""
        return {
            node: each["state"]["bytes"]
            for node, view in (await self._views("")).items()
            for each in _streams(view)
            if each["name"] == stream
        }

    async def tail_hosts(self) -> Counter[int]:
        """On which nodes the consumers of the log live, and how many on each."""
        consumers = {
            consumer["name"]: int(
                consumer.get("cluster", {}).get("leader", f"n{node}").removeprefix("n")
            )
            for node, view in (await self._views()).items()
            for each in _streams(view)
            if each["name"] == STREAM
            for consumer in each.get("consumer_detail") or ()
        }
        return Counter(consumers.values())

    async def _views(self, more: str = "&consumers=true") -> Mapping[int, Json]:
        """What each node that answers says of JetStream."""
        asked = [(number, node) for number, node in self.nodes.items() if node.answers]
        path = f"/jsz?accounts=true&streams=true{more}"
        answers = await asyncio.gather(*(self._ask(node, path) for _, node in asked))
        return {
            number: answer.json()
            for (number, _), answer in zip(asked, answers, strict=True)
            if answer is not None
        }

    async def _healthy(self, node: NatsNode) -> bool:
        answer = await self._ask(node, "/healthz")
        return answer is not None and answer.status_code == httpx.codes.OK

    async def _ask(self, node: NatsNode, path: str) -> httpx.Response | None:
        try:
            return await self._client.get(f"http://{HOST}:{node.monitor_port}{path}")
        except httpx.TransportError:
            return None


def _streams(view: Json) -> list[Json]:
    return [
        each
        for account in view.get("account_details") or ()
        for each in account.get("stream_detail") or ()
    ]


def _is_whole(node: int, view: Json) -> bool:
    """Whether every group has a leader, and those that this node leads lack no replica.

    Only a leader knows how its replicas are.
    """
    groups = [view.get("meta_cluster") or {}]
    groups += [each.get("cluster") or {} for each in _streams(view)]
    return all(
        group.get("leader")
        and (
            group["leader"] != f"n{node}"
            or all(replica.get("current") for replica in group.get("replicas") or ())
        )
        for group in groups
    )
