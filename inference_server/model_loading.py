"""From a model's files to a served model: load, golden samples, in this order; then the data plane has it.

Promises that the event loop turns meanwhile: ONNX Runtime loads in a thread of its own, which the process does not wait
for when it ends.
"""

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

from inference_server import golden
from inference_server.dataplane import DataPlane
from inference_server.model_directory import ModelFiles
from inference_server.plan import Plan

if TYPE_CHECKING:
    from inference_server.model import Model

logger = logging.getLogger(__name__)


class ModelLoading:
    """Loads models of one server.

    Args:
        dataplane: Where they are served.
        threads: Threads that computing may take.
        golden_timeout: Seconds that the golden samples of one model may take together.
    """

    def __init__(self, dataplane: DataPlane, threads: int, golden_timeout: float) -> None:
        self._dataplane = dataplane
        self._threads = threads
        self._golden_timeout = golden_timeout

    async def load(self, files: ModelFiles) -> dict[str, object]:
        """Load a model, serve it, whatever came of its golden samples, and return what the log is to tell of it.

        Raises:
            LoadError: It cannot be served.
        """
        model = await _Loading(files, self._threads).done
        result = await golden.judge(self._dataplane, model, files, self._golden_timeout)
        if result.outcome == "Fail":
            # Served all the same: who sends traffic decides, and a node that restarts has nothing better.
            told = [failure.message for failure in result.failures]
            logger.error("golden samples failed", extra={"fields": {"model": files.name, "failures": told}})
        self._dataplane.add(model, Plan(sessions=self._threads, threads=self._threads), result)
        return {
            "model": files.name,
            "version": files.version,
            "digest": files.digest,
            "threads": self._threads,
            "load_seconds": round(model.load_seconds, 4),
            "memory_bytes": model.memory_bytes,
            "golden_samples": f"{result.outcome} {result.passed}/{result.total}",
        }


class _Loading:
    """A load under way in a daemon thread: the process may end without waiting for it."""

    def __init__(self, files: ModelFiles, threads: int) -> None:
        # Imported here, after the socket listens: onnxruntime is most of the start-up time.
        from inference_server.model import Model

        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Model] = self._loop.create_future()

        def load() -> None:
            try:
                model = Model(files, threads)
            except BaseException as error:  # noqa: BLE001 — handed to the waiter, which raises it
                self._loop.call_soon_threadsafe(self._fail, error)
            else:
                self._loop.call_soon_threadsafe(self._succeed, model)

        threading.Thread(target=load, name="load", daemon=True).start()

    def _succeed(self, model: "Model") -> None:
        if not self.done.done():
            self.done.set_result(model)

    def _fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)
