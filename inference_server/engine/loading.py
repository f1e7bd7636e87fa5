"""From files to a model that can be served: loads it, warms it up, and finds how to compute it here.

Blocks, and imports onnxruntime: call it from a thread, after the socket listens.
"""

import logging
import time

from inference_server.engine.calibration import Pinned, calibrate, uncalibrated
from inference_server.engine.model import Model
from inference_server.engine.plan import Plan
from inference_server.files.model_directory import ModelFiles
from inference_server.settings import Settings

logger = logging.getLogger(__name__)


def load(files: ModelFiles, settings: Settings, cpus: int) -> tuple[Model, Plan]:
    """Return the model and the plan for it.

    Args:
        files: What to load.
        settings: Pins threads, sessions and batches; chooses providers and memory mode.
        cpus: CPUs that this process may keep busy.

    Raises:
        LoadError: The model cannot be served.
    """
    pinned = Pinned(settings.threads, settings.sessions, settings.max_batch_size, settings.max_queue_delay)
    if settings.no_calibration:
        plan = uncalibrated(pinned, cpus)
        return load_as(files, settings, plan), plan
    model = _open(files, settings, settings.threads or 1)
    started = time.monotonic()
    plan = calibrate(model, pinned, cpus)
    model.trim()
    logger.info(
        "calibrated",
        extra={
            "fields": {
                "model": files.name,
                "seconds": round(time.monotonic() - started, 3),
                "threads": plan.threads,
                "sessions": plan.sessions,
                "batchable": plan.batchable,
                "max_batch_size": plan.batch_rows,
                "inline": plan.inline,
                "run_microseconds": {str(elements): round(seconds * 1e6) for elements, seconds in plan.costs},
            }
        },
    )
    return model, plan


def load_as(files: ModelFiles, settings: Settings, plan: Plan) -> Model:
    """Return the model as it is computed by a plan; nothing is measured.

    Raises:
        LoadError: The model cannot be served.
    """
    model = _open(files, settings, plan.threads)
    model.trim()
    return model


def _open(files: ModelFiles, settings: Settings, threads: int) -> Model:
    return Model(files, threads, providers=settings.providers, low_memory=settings.memory_mode == "low")
