"""From a model's files to a served model: load, golden samples, and then the data plane has it.

Promises that the event loop turns meanwhile: loading and calibrating happen in a thread, which the process does not wait
for when it ends.
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass

from inference_server.engine.plan import Plan
from inference_server.files.model_directory import ModelFiles
from inference_server.host.cgroup import cpu_limit
from inference_server.host.daemon_thread import in_daemon_thread
from inference_server.messages import GoldenResult
from inference_server.serving import golden
from inference_server.serving.dataplane import DataPlane
from inference_server.settings import Settings

logger = logging.getLogger(__name__)

# A session that has computed gets the GIL back after so long at most, while the event loop parses; Python's own 5 ms would
# leave it idle for longer than many a run takes. Measured in docs/adr/0021-inference-engine.md.
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True, slots=True)
class Known:
    """What another process found out about the model.

    Attributes:
        plan: How it is computed.
        golden: What came of its golden samples.
    """

    plan: Plan
    golden: GoldenResult


class Activation:
    """Makes models of one server answer.

    Args:
        dataplane: Where they are served.
        settings: How they are loaded and judged.
        known: What needs no finding out; None measures and judges each model.
        settle: Told of what is known of a model before it is served; returns the plan that it is served by.
    """

    def __init__(
        self,
        dataplane: DataPlane,
        settings: Settings,
        known: Known | None = None,
        settle: Callable[[Known], Plan] = lambda known: known.plan,
    ) -> None:
        self._dataplane = dataplane
        self._settings = settings
        self._known = known
        self._settle = settle

    async def activate(self, files: ModelFiles) -> dict[str, object]:
        """Load a model and serve it, whatever came of its golden samples; return what the log is to tell of it.

        Raises:
            LoadError: It cannot be served.
        """
        # Imported here, after the socket listens: onnxruntime is most of the start-up time.
        from inference_server.engine.loading import load, load_as

        if (known := self._known) is not None:
            model = await in_daemon_thread(lambda: load_as(files, self._settings, known.plan), "load")
            plan, result = known.plan, known.golden
        else:
            cpus = max(1, cpu_limit() // (self._settings.processes or 1))
            model, plan = await in_daemon_thread(lambda: load(files, self._settings, cpus), "load")
            result = await golden.judge(self._dataplane, model, files, self._settings.golden_timeout)
            if result.outcome == "Fail":
                # Served all the same: who sends traffic decides, and a node that restarts has nothing better.
                told = [failure.message for failure in result.failures]
                logger.error(
                    "golden samples failed", extra={"fields": {"model": files.name, "failures": told}}
                )
        plan = self._settle(Known(plan, result))
        if not plan.inline:
            sys.setswitchinterval(_SWITCH_SECONDS)
        self._dataplane.add(model, plan, result)
        return {
            "model": files.name,
            "version": files.version,
            "digest": files.digest,
            "load_seconds": round(model.load_seconds, 4),
            "memory_bytes": model.memory_bytes,
            "processes": plan.processes,
            "golden_samples": f"{result.outcome} {result.passed}/{result.total}",
        }
