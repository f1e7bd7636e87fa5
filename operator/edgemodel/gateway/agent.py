"""Keeps HAProxy in step with EdgeModels and pods.

Promises
- Pods and weights go to HAProxy at once, by its runtime API; what needs a new configuration waits for company (at most one
  reload a second), and while it waits pods and weights of the other models go on being told.
- What HAProxy would not take is left out, model by model, and said; all others are led to.
- While the API server is away, what was last known goes on; after a restart without it, the last configuration that was
  taken does.
- HAProxy is started again whenever it ends.

Leaves to others: what follows from the objects (``routes``), how that is said to HAProxy (``configuration``, ``changes``).
"""

import asyncio
import contextlib
import logging
import socket
import time
from pathlib import Path

from edgemodel.api.meta import API_VERSION, LABEL_MODEL
from edgemodel.errors import EdgeModelError, Refused, Transient
from edgemodel.gateway import kept, runtime
from edgemodel.gateway.api_server import ApiServer
from edgemodel.gateway.changes import Command, apart_from_shapes, changes, settled
from edgemodel.gateway.collection import Collection
from edgemodel.gateway.configuration import ENDING, Place, files
from edgemodel.gateway.haproxy import HAProxy
from edgemodel.gateway.metrics import Metrics
from edgemodel.gateway.own_secrets import OwnSecrets
from edgemodel.gateway.routes import Route, read_routes
from edgemodel.gateway.settings import GatewaySettings
from edgemodel.gateway.shadow import Shadow

log = logging.getLogger(__name__)

RELOAD_SECONDS = 1.0
"""No two reloads are closer; with every worker that has not ended yet the distance doubles, as each holds memory."""
FARTHEST_RELOAD_SECONDS = 16.0
SETTLE_SECONDS = 0.1
"""What comes together is reloaded together."""
AGAIN_SECONDS = 1.0
"""What failed is tried again after this."""
TIDY_SECONDS = 5.0
FIRST_SECONDS = 10.0
"""How long a start waits for the API server before it takes the last good configuration."""


class Gateway:
    """See the module's docstring.

    Args:
        settings: what it was started with.
        api: the API server.
        binary: HAProxy's program.
        patience: seconds that a start waits for the API server before it takes the last good configuration.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        api: ApiServer,
        *,
        binary: str = "haproxy",
        patience: float = FIRST_SECONDS,
    ) -> None:
        self._settings = settings
        self._patience = patience
        settings.state_folder.mkdir(parents=True, exist_ok=True)
        self.place = Place(
            str(settings.state_folder),
            http_port=settings.http_port,
            https_port=settings.https_port,
            metrics_port=settings.haproxy_port,
            ipv6=_has_ipv6(),
            threads=settings.threads,
            buffer_bytes=settings.buffer_bytes,
            max_connections=settings.max_connections,
        )
        self.haproxy = HAProxy(self.place, binary=binary)
        self.metrics = Metrics(starts=lambda: self.haproxy.starts)
        self.shadow = Shadow(self.place.folder, self.metrics.shadow, head_bytes=settings.buffer_bytes)
        self._wake = asyncio.Event()
        self._woken: float | None = None
        self._stopping = asyncio.Event()
        self._models, self._pods = [], []
        for namespace in settings.namespaces or ("",):
            within = f"/namespaces/{namespace}" if namespace else ""
            models, pods = f"/apis/{API_VERSION}{within}/edgemodels", f"/api/v1{within}/pods"
            self._models.append(Collection(api, models, changed=self._changed, keep=kept.model))
            self._pods.append(
                Collection(api, pods, selector=LABEL_MODEL, changed=self._changed, keep=kept.pod)
            )
        self._secrets = OwnSecrets(
            api, access=settings.access_secret, tls=settings.tls_secret, changed=self._changed
        )
        self._applied: tuple[Route, ...] | None = None
        """What HAProxy does; None before its first start."""
        self._certificate = ""
        self._refused: dict[str, tuple[Route, str]] = {}
        """By key: shapes of routes that HAProxy does not take, and why."""
        self._refused_certificate = ""
        self._told: dict[str, str] = {}
        self._tidy: list[Command] = []
        self._due: float | None = None
        self._next_reload = 0.0

    def _changed(self) -> None:
        if self._woken is None:
            self._woken = time.monotonic()
        self._wake.set()

    @property
    def _followed(self) -> tuple[Collection, ...]:
        return (*self._models, *self._pods)

    # -- what others ask ----------------------------------------------------------------------------------------------

    def unhealthy(self) -> str | None:
        """Say what is wrong that a restart may mend: nothing, as long as this can be asked."""
        return None

    def unready(self) -> str | None:
        """Say why no request is to be sent here."""
        if self._stopping.is_set():
            return "ending"
        if not self.haproxy.alive or self._applied is None:
            return "HAProxy does not run"
        return None

    def stop(self) -> None:
        """Ask it to end."""
        self._stopping.set()

    # -- life -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until stopped; then requests that are under way are waited for."""
        await self.shadow.start()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(one)
                for one in (
                    *(collection.follow() for collection in self._followed),
                    self._secrets.follow(),
                    self._keep_tidy(),
                    self._keep_alive(),
                    self._keep_in_step(),
                )
            ]
            await self._stopping.wait()
            for task in tasks:
                task.cancel()
        await self._end()
        await self.shadow.stop()

    async def _end(self) -> None:
        """Wait for requests that are under way; no worker leaves them to the one that followed it any more."""
        command = f"set map {self.place.weights} {ENDING} 1"
        with contextlib.suppress(runtime.CommandRefused):
            await runtime.order(self.place.runtime_socket, command)
        for worker in await self.haproxy.leaving():
            with contextlib.suppress(runtime.CommandRefused):
                await runtime.order(self.place.master_socket, f"@!{worker} {command}")
        await self.haproxy.stop(self._settings.drain_seconds)

    async def _keep_alive(self) -> None:
        while True:
            await self.haproxy.started.wait()
            code = await self.haproxy.wait()
            log.error("HAProxy ended and is started again", extra={"code": code})
            self._changed()

    async def _keep_tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            await self._remove_idle()

    async def _keep_in_step(self) -> None:
        await self._first_words()
        while True:
            try:
                await self._step()
            except EdgeModelError as error:
                self.metrics.changes.labels("failed").inc()
                log.error("what HAProxy did goes on: %s", error.message)  # noqa: TRY400 - for a person
                asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._changed)
            await self._wake.wait()

    async def _first_words(self) -> None:
        """Wait until everything was read once; when that takes long, begin with what was good last."""
        end = time.monotonic() + self._patience
        while not (self._secrets.read and all(one.listed for one in self._followed)):
            last = None if self.haproxy.alive or time.monotonic() < end else self.haproxy.last_good()
            if last is not None:
                log.warning("the API server does not answer: the last good configuration is used")
                try:
                    await self.haproxy.use(last)
                    self._applied = ()
                except Transient as error:
                    log.error("the last good configuration is not taken: %s", error.message)  # noqa: TRY400
                    end = time.monotonic() + AGAIN_SECONDS
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 0.2)

    async def _step(self) -> None:
        """Make HAProxy do what is known now, or as much of it as may be done now."""
        self._wake.clear()
        self.metrics.in_step.set(all(one.in_step for one in self._followed))
        wanted = self._wanted()
        if self._applied is None or not self.haproxy.alive:
            await self._load(wanted, "start")
            return
        same = apart_from_shapes(self._applied, wanted)
        if same != self._applied:
            try:
                await self._tell(same)
            except runtime.CommandRefused as error:
                # What HAProxy holds is not what it was thought to hold: the whole truth mends that.
                log.warning("a reload instead: %s", error.message)
                await self._load(wanted, "reload")
                return
        if same == wanted and self._certificate == self._wanted_certificate():
            if self._due is None:
                self._woken = None
            self._due = None
            return
        now = time.monotonic()
        if self._due is None:
            self._due = max(now + SETTLE_SECONDS, self._next_reload)
        if now < self._due:
            asyncio.get_running_loop().call_later(self._due - now, self._wake.set)
        else:
            await self._load(wanted, "reload")

    def _wanted(self) -> tuple[Route, ...]:
        """Return the routes that HAProxy is to have, and say of each model once why it has none."""
        read = read_routes(
            (one for copy in self._models for one in copy.objects.values()),
            (one for copy in self._pods for one in copy.objects.values()),
            self._secrets.access,
        )
        problems = dict(read.problems)
        wanted = []
        for route in settled(self._applied or (), read.routes):
            shape, why = self._refused.get(route.key, (None, ""))
            if shape == route.shape:
                problems[route.key] = why
            else:
                self._refused.pop(route.key, None)
                wanted.append(route)
        for key, why in problems.items():
            if self._told.get(key) != why:
                log.error("this model is not led to", extra={"model": key, "cause": why})
        self._told = problems
        self.metrics.left_out.set(len(problems))
        self.metrics.routes.set(len(wanted))
        self.shadow.follow(wanted)
        return tuple(wanted)

    def _wanted_certificate(self) -> str:
        wanted = self._secrets.certificate
        return self._certificate if wanted == self._refused_certificate else wanted

    # -- by the runtime API ---------------------------------------------------------------------------------------------

    async def _tell(self, wanted: tuple[Route, ...]) -> None:
        """Have HAProxy change pods and weights.

        Raises:
            CommandRefused: it did not do all of it.
        """
        assert self._applied is not None
        commands = changes(self._applied, wanted, self.place)
        at_once = [command.text for command in commands if not command.tidying]
        for text in at_once:
            await runtime.order(self.place.runtime_socket, text)
        self._tidy += [command for command in commands if command.tidying]
        self._applied = wanted
        self._changed_by("runtime")
        # A new worker, whenever one comes, begins from the files.
        await asyncio.to_thread(self.haproxy.remember, files(wanted, self.place, self._certificate))
        await self._remove_idle()

    async def _remove_idle(self) -> None:
        """Remove the servers of pods that are gone; those that still have a request stay for another time."""
        for command in list(self._tidy):
            with contextlib.suppress(runtime.CommandRefused):
                await runtime.order(self.place.runtime_socket, command.text)
                self._tidy = [one for one in self._tidy if one is not command]

    def _changed_by(self, way: str) -> None:
        self.metrics.changes.labels(way).inc()
        if self._woken is not None:
            self.metrics.duration.labels(way).observe(time.monotonic() - self._woken)
        self._woken = None

    # -- by a new configuration -----------------------------------------------------------------------------------------

    async def _load(self, wanted: tuple[Route, ...], way: str) -> None:
        """Have HAProxy take a whole configuration.

        Raises:
            EdgeModelError: it did not; what it did before goes on.
        """
        self._due = None
        wanted = self._without_taken_ports(wanted)
        certificate = self._wanted_certificate()
        text = files(wanted, self.place, certificate)
        try:
            await self.haproxy.check(text)
        except Refused as error:
            log.error("%s", error.message)  # noqa: TRY400 - for a person
            certificate = await self._sound_certificate(certificate)
            wanted = await self._sound(wanted, certificate)
            text = files(wanted, self.place, certificate)
            await self.haproxy.check(text)
        try:
            await self.haproxy.use(text)
        finally:
            wait = RELOAD_SECONDS * 2.0 ** max(0, len(await self.haproxy.leaving()) - 1)
            self._next_reload = time.monotonic() + min(wait, FARTHEST_RELOAD_SECONDS)
        self._applied, self._certificate, self._tidy = wanted, certificate, []
        self._changed_by(way)

    def _without_taken_ports(self, routes: tuple[Route, ...]) -> tuple[Route, ...]:
        """Leave out models at whose port somebody else listens: one such ``bind`` would cost all models the reload."""
        had = {route.port for route in self._applied or ()} if self.haproxy.alive else set()
        free = tuple(route for route in routes if route.port in had or not _taken(route.port))
        for route in routes:
            if route not in free:
                log.error(
                    "this model is not led to: port %d is taken", route.port, extra={"model": route.key}
                )
        if len(free) < len(routes):
            asyncio.get_running_loop().call_later(10 * AGAIN_SECONDS, self._changed)
        return free

    async def _sound(self, routes: tuple[Route, ...], certificate: str) -> tuple[Route, ...]:
        """Leave out each model whose own part HAProxy does not take."""
        sound: list[Route] = []
        known = {route.shape for route in self._applied or ()}
        for route in routes:
            try:
                if route.shape not in known:
                    await self.haproxy.check(files((route,), self.place, certificate))
                sound.append(route)
            except Refused as error:
                self._refused[route.key] = (route.shape, error.message)
                self._wake.set()  # to have it told
        return tuple(sound)

    async def _sound_certificate(self, certificate: str) -> str:
        """Keep the certificate that was, where HAProxy does not take the new one."""
        if certificate == self._certificate:
            return certificate
        try:
            await self.haproxy.check(files((), self.place, certificate))
        except Refused as error:
            log.error("the TLS Secret is not used: %s", error.message)  # noqa: TRY400 - for a person
            self._refused_certificate = certificate
            return self._certificate
        return certificate


def _taken(port: int) -> bool:
    """Tell whether somebody else listens at a port; HAProxy's own workers share theirs."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError:
            return True
    return False


def _has_ipv6() -> bool:
    try:
        return bool(Path("/proc/net/if_inet6").read_text(encoding="ascii").strip())
    except OSError:
        return False
