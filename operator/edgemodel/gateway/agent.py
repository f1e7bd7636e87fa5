"""Keeps HAProxy in step with EdgeModels and pods.

Promises
- Pods and weights go to HAProxy at once, by its runtime API; what needs a new configuration waits for company (at most one
  reload a second), and while it waits pods and weights of the other models go on being told.
- What HAProxy would not take is left out, model by model, and said; all others are led to.
- While the API server is away, what was last known goes on.
- HAProxy outlives it: an agent that follows finds one that runs, and goes on with it, by a reload where it is not certain
  what it has.

Leaves to others: HAProxy's life (``supervisor``), what follows from the objects (``routes``), how that is said to HAProxy
(``configuration``, ``changes``).
"""

import asyncio
import contextlib
import logging
import time

from edgemodel.api.meta import API_VERSION, LABEL_MODEL
from edgemodel.errors import EdgeModelError, Refused
from edgemodel.gateway import kept, runtime
from edgemodel.gateway.api_server import ApiServer
from edgemodel.gateway.changes import Command, apart_from_shapes, changes, settled
from edgemodel.gateway.collection import Collection
from edgemodel.gateway.configuration import Place, files
from edgemodel.gateway.haproxy import HAProxy
from edgemodel.gateway.listening import has_ipv6, is_taken
from edgemodel.gateway.lost_nodes import LostNodes
from edgemodel.gateway.metrics import Metrics
from edgemodel.gateway.own_secrets import OwnSecrets
from edgemodel.gateway.pacing import Pacing
from edgemodel.gateway.routes import Route, read_routes
from edgemodel.gateway.settings import GatewaySettings
from edgemodel.gateway.shadow import Shadow
from edgemodel.gateway.state import NOW
from edgemodel.gateway.supervisor import BEAT

log = logging.getLogger(__name__)

RELOAD_SECONDS = 1.0
"""No two reloads are closer; with every worker that has not ended yet the distance doubles, as each holds memory."""
FARTHEST_RELOAD_SECONDS = 16.0
SETTLE_SECONDS = 0.1
"""What comes together is reloaded together."""
AGAIN_SECONDS = 1.0
"""What failed is tried again after this."""
TIDY_SECONDS = 5.0
CURRENT_SECONDS = 4.0
"""How long reading everything anew may take when somebody asks for it."""


class Gateway:
    """See the module's docstring.

    Args:
        settings: what it was started with.
        api: the API server.
        binary: HAProxy's program.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        api: ApiServer,
        *,
        binary: str = "haproxy",
    ) -> None:
        settings.state_folder.mkdir(parents=True, exist_ok=True)
        self._beat = settings.state_folder / BEAT
        self.place = Place(
            str(settings.state_folder / NOW),
            sockets=str(settings.state_folder),
            http_port=settings.http_port,
            https_port=settings.https_port,
            metrics_port=settings.haproxy_port,
            ipv6=has_ipv6(),
            threads=settings.threads,
            buffer_bytes=settings.buffer_bytes,
            max_connections=settings.max_connections,
        )
        self.haproxy = HAProxy(self.place, binary=binary, changed=self._haproxy_changed)
        self.metrics = Metrics(starts=lambda: self.haproxy.starts)
        self.shadow = Shadow(self.place.meeting, self.metrics.shadow, head_bytes=settings.buffer_bytes)
        self._wake = asyncio.Event()
        self._woken: float | None = None
        """When the first change came that no step has taken up."""
        self._doing: float | None = None
        """When the first change came of those that a step took up, and that HAProxy has not done."""
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
        """What HAProxy does; None while that is not known."""
        self._remembered = False
        """HAProxy's files on disk say all that it was told."""
        self._certificate = ""
        self._refused: dict[str, tuple[Route, str]] = {}
        """By key: shapes of routes that HAProxy does not take, and why."""
        self._refused_certificate = ""
        self._told: dict[str, str] = {}
        self._tidy: list[Command] = []
        self._telling = asyncio.Lock()
        """Held while HAProxy is had change something."""
        self._pacing = Pacing(
            self.place, lambda: self._applied or (), self._telling, self.metrics.slow_servers
        )
        self._due: float | None = None
        self._next_reload = 0.0

    def _changed(self) -> None:
        if self._woken is None:
            self._woken = time.monotonic()
        self._wake.set()

    def _haproxy_changed(self) -> None:
        self._applied = None
        self._changed()

    @property
    def _done(self) -> bool:
        """HAProxy does all that is known."""
        return self._woken is None and self._doing is None

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
        if not self.haproxy.alive:
            return "HAProxy does not run"
        return None

    async def outdated(self) -> str | None:
        """Read everything anew and have HAProxy do it; say what of it could not be done in time.

        For those who were cut off, and may have missed which version serves.
        """
        try:
            async with asyncio.timeout(CURRENT_SECONDS):
                await asyncio.gather(*(one.read_anew() for one in self._followed))
                while not self._done:  # noqa: ASYNC110 - HAProxy's answer, and whatever comes in between
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return "not everything could be read anew and told to HAProxy"
        return self.unready()

    def stop(self) -> None:
        """Ask it to end."""
        self._stopping.set()

    # -- life -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until stopped; HAProxy goes on."""
        await self.shadow.start()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(one)
                    for one in (
                        *(collection.follow() for collection in self._followed),
                        self._secrets.follow(),
                        self._keep_tidy(),
                        self.haproxy.follow(),
                        LostNodes(self.haproxy, self.place).run(),
                        self._keep_in_step(),
                        self._pacing.follow(),
                    )
                ]
                await self._stopping.wait()
                for task in tasks:
                    task.cancel()
        finally:
            await self.shadow.stop()

    async def _keep_tidy(self) -> None:
        while True:
            self._beat.touch()
            await asyncio.sleep(TIDY_SECONDS)
            await self._remove_idle()

    async def _keep_in_step(self) -> None:
        await self._first_words()
        while True:
            try:
                async with self._telling:
                    await self._step()
            except EdgeModelError as error:
                self.metrics.changes.labels("failed").inc()
                log.error("what HAProxy did goes on: %s", error.message)  # noqa: TRY400 - for a person
                asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._changed)
            await self._wake.wait()

    async def _first_words(self) -> None:
        """Wait until everything was read once; until then HAProxy does what was good last."""
        while not (self._secrets.read and all(one.listed for one in self._followed)):
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 0.2)

    async def _step(self) -> None:
        """Make HAProxy do what is known now, or as much of it as may be done now."""
        self._wake.clear()
        # What comes while HAProxy is being told is the next step's.
        self._doing, self._woken = self._woken if self._doing is None else self._doing, None
        self.metrics.in_step.set(all(one.in_step for one in self._followed))
        wanted = self._wanted()
        if self._applied is None or not self.haproxy.alive:
            await self._begin(wanted)
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
            self._doing = self._due = None
            return
        now = time.monotonic()
        if self._due is None:
            self._due = max(now + SETTLE_SECONDS, self._next_reload)
        self._doing = self._doing or now  # pods and weights are told; shapes wait for the reload
        if now < self._due:
            asyncio.get_running_loop().call_later(self._due - now, self._wake.set)
        else:
            await self._load(wanted, "reload")

    async def _begin(self, wanted: tuple[Route, ...]) -> None:
        """Go on with an HAProxy that runs, as far as it is certain what it has; have one started if there is none."""
        if not await self.haproxy.comes():
            await self._load(wanted, "start")
            return
        certificate = self._wanted_certificate()
        if self.haproxy.known() == files(wanted, self.place, certificate):
            self._have(wanted, certificate)
            self._changed_by("adoption")
        else:
            await self._load(wanted, "reload")

    def _have(self, routes: tuple[Route, ...], certificate: str) -> None:
        self._applied, self._certificate, self._tidy = routes, certificate, []
        self._remembered = True

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
        await self._pacing.release(wanted)
        at_once = [command.text for command in commands if not command.tidying]
        self._remembered = False
        self.haproxy.doubt()
        for text in at_once:
            await runtime.order(self.place.runtime_socket, text)
        self._tidy += [command for command in commands if command.tidying]
        self._applied = wanted
        self._changed_by("runtime")
        # A new worker, whenever one comes, begins from the files.
        await asyncio.to_thread(self.haproxy.remember, files(wanted, self.place, self._certificate))
        self._remembered = True
        await self._remove_idle()

    async def _remove_idle(self) -> None:
        """Remove the servers of pods that are gone; those that still have a request stay for another time."""
        for command in list(self._tidy):
            with contextlib.suppress(runtime.CommandRefused):
                await runtime.order(self.place.runtime_socket, command.text)
                self._tidy = [one for one in self._tidy if one is not command]
        if self._remembered and not self._tidy:
            self.haproxy.trust()

    def _changed_by(self, way: str) -> None:
        self.metrics.changes.labels(way).inc()
        if self._doing is not None:
            self.metrics.duration.labels(way).observe(time.monotonic() - self._doing)
        self._doing = None

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
        self._have(wanted, certificate)
        self._changed_by(way)

    def _without_taken_ports(self, routes: tuple[Route, ...]) -> tuple[Route, ...]:
        """Leave out models at whose port somebody else listens: one such ``bind`` would cost all models the reload."""
        had = self.haproxy.ports()
        free = tuple(route for route in routes if route.port in had or not is_taken(route.port))
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
