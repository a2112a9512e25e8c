"""The way in of a node: an actor that keeps a proxy in front of a group's replicas.

Replicas find it by its name and say each second that they are there. While none is ready it holds
what comes and has Serve start one.
"""

import asyncio
import logging
import time
from typing import Any

import ray
from ray import serve
from ray.serve.exceptions import RayServeException

from trivet.server.ray.group import OWN_ADDRESS, Group
from trivet.server.ray.haproxy import HaProxy, Wakers
from trivet.server.ray.slots import FORGOTTEN_S, Replica, Slots
from trivet.server.ray.waking import Waker

log = logging.getLogger(__name__)
_LOOK_S = 1.0
_GONE_FOR_S = 10.0
"""An application that is not there for so long has been deleted."""


def slots_for(group: Group) -> int:
    """Servers of the proxy: twice as many as replicas, since new ones come before old ones go."""
    return 2 * group.max_replicas + 4


class WayIn:
    """Owned by one actor's loop."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._group = Group.of(arguments)
        self._slots = Slots(slots_for(self._group))
        self._proxy: HaProxy | None = None
        self._opening = asyncio.Lock()
        self._has_replica = asyncio.Event()
        self._heard_s = time.monotonic()
        self._wakers: list[Waker] = []
        self._keeping: asyncio.Task[None] | None = None

    async def hear(self, name: str, host: str, http_port: int, grpc_port: int) -> None:
        """A ready replica says that it is there."""
        proxy = await self._open()
        replica = Replica(name, host, http_port, grpc_port)
        self._heard_s = time.monotonic()
        slot = self._slots.hear(replica, self._heard_s)
        if slot is not None:
            log.info("replica %s is at %s:%d, %d", name, host, http_port, grpc_port)
            await proxy.place(slot, replica)
        self._has_replica.set()

    async def release(self, name: str) -> None:
        """A replica has ended."""
        proxy = await self._open()
        await proxy.free(self._slots.release(name))
        self._note_emptiness()

    async def replicas(self) -> list[str]:
        """Names of those that it knows."""
        await self._open()
        return [each.name for each in self._slots.replicas if each is not None]

    async def _open(self) -> HaProxy:
        async with self._opening:
            if self._proxy is None:
                self._proxy = await self._opened()
                self._keeping = asyncio.ensure_future(self._keep())
            return self._proxy

    async def _opened(self) -> HaProxy:
        ports = []
        for is_grpc in (False, True):
            waker = Waker(self._wanted, is_grpc=is_grpc)
            self._wakers.append(waker)
            ports.append(await waker.start())
        self._ports = Wakers(*ports)
        return self._proxy_of_its_own()

    def _proxy_of_its_own(self) -> HaProxy:
        own = self._group.host == OWN_ADDRESS
        host = ray.util.get_node_ip_address() if own else self._group.host
        return HaProxy(self._group, host, len(self._slots.replicas), self._ports)

    async def _keep(self) -> None:
        """Looks each second after the proxy, after replicas that have gone without a word, and
        whether it is still needed."""
        missed_since_s = 0.0
        while True:
            await asyncio.sleep(_LOOK_S)
            now_s = time.monotonic()
            assert self._proxy is not None
            if not self._proxy.is_running():
                await self._begin_anew()
            await self._proxy.free(self._slots.forget(now_s))
            self._note_emptiness()
            if now_s - self._heard_s < FORGOTTEN_S:
                missed_since_s = 0.0
                continue
            is_there = await asyncio.to_thread(has_application, self._group.name)
            missed_since_s = 0.0 if is_there else missed_since_s or now_s
            if missed_since_s and now_s - missed_since_s > _GONE_FOR_S:
                self._leave()
            if self._group.min_replicas and now_s - self._heard_s > self._most_silence_s:
                self._leave()

    @property
    def _most_silence_s(self) -> float:
        """Of a group that always has replicas, before this is a way in that nobody speaks to."""
        return FORGOTTEN_S + self._group.longest_load_s

    async def _begin_anew(self) -> None:
        assert self._proxy is not None
        log.error("the proxy has ended; it is started again")
        self._proxy.close()
        self._proxy = self._proxy_of_its_own()
        for slot, replica in enumerate(self._slots.replicas):
            if replica is not None:
                await self._proxy.place(slot, replica)

    def _note_emptiness(self) -> None:
        if not any(self._slots.replicas):
            self._has_replica.clear()

    async def _wanted(self) -> Replica:
        """What `Waker` asks. Serve counts its call as a request that waits: it starts a replica."""
        try:
            handle = await asyncio.to_thread(serve.get_app_handle, self._group.name)
            await asyncio.wait_for(handle.wake.remote(), self._group.longest_load_s)
        except (RayServeException, ray.exceptions.RayError) as error:
            raise ConnectionError(f"Serve starts no replica: {error}") from None
        await asyncio.wait_for(self._has_replica.wait(), self._group.longest_load_s)
        return next(each for each in self._slots.replicas if each is not None)

    def _leave(self) -> None:
        log.info("group '%s' is gone: this way in ends", self._group.name)
        assert self._proxy is not None
        for waker in self._wakers:
            waker.close()
        self._proxy.close()
        ray.kill(ray.get_runtime_context().current_actor)


def has_application(name: str) -> bool:
    """Whether Serve has it; it counts as there while Serve does not answer."""
    try:
        return name in serve.status().applications
    except ray.exceptions.RayError:
        return True
