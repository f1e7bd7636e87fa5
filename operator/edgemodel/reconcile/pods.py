"""What one live pod tells about its version: does it answer, how far has it come, what went wrong.

Everything in a pod's status that a container wrote is untrusted: reasons count only if that container may say them, text
loses its control characters and credentials in URLs and is cut to length.

Termination messages, written by ``edgemodel node fetch`` and by the inference server to ``/dev/termination-log``, are
one JSON object ``{"reason": <Reason>, "message": <text>}``; of any other text (the end of the log, taken by the kubelet) the
last line is kept, and if that is such an object, as our log lines are, its message.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from edgemodel.api.conditions import Reason
from edgemodel.api.meta import CSI_DRIVER, LABEL_DIGEST
from edgemodel.rollout.facts import Failure

MESSAGE_LENGTH = 512
"""Characters of a pod's own words that reach status."""

TRUST_REASONS = frozenset(
    {
        Reason.NO_MATCHING_POLICY,
        Reason.SIGNATURE_MISSING,
        Reason.SIGNATURE_INVALID,
        Reason.KEY_UNKNOWN,
        Reason.KEY_REVOKED,
        Reason.DOWNGRADE_REFUSED,
        Reason.EXPIRED,
        Reason.DIGEST_MISMATCH,
        Reason.WRONG_MODEL,
        Reason.MALFORMED_ARTIFACT,
    }
)
"""The artifact was judged and refused."""
REGISTRY_REASONS = frozenset({Reason.REGISTRY_UNREACHABLE, Reason.AUTHENTICATION_FAILED, Reason.NOT_FOUND})
DELIVERY_REASONS = (
    TRUST_REASONS | REGISTRY_REASONS | {Reason.TRANSFER_FAILED, Reason.DISK_FULL, Reason.INVALID_SPEC}
)
"""What keeps an artifact from reaching a pod."""
FILE_REASONS = frozenset(
    {
        Reason.MODEL_LOAD_FAILED,
        Reason.UNSUPPORTED_OPSET,
        Reason.MISSING_EXTERNAL_DATA,
        Reason.AMBIGUOUS_MODEL_FILE,
        Reason.MODEL_FILE_NOT_FOUND,
    }
)
"""The same file will fail in the same way wherever and however often it is loaded."""
LOAD_REASONS = FILE_REASONS | {Reason.OUT_OF_MEMORY, Reason.SERVER_CRASHED}
"""What keeps a delivered artifact from answering."""
PLACE_REASONS = frozenset({Reason.UNSCHEDULABLE, Reason.IMAGE_PULL_FAILED})
"""What keeps a pod from starting at all."""

_FINAL = FILE_REASONS | {Reason.DIGEST_MISMATCH}
"""Fatal at once. Another refusal by the pod, of what the operator's own judgement passed, comes of a ConfigMap that the node
has not seen change yet or of a clock that is off: the kubelet tries again, until the progress deadline. Bytes that were
altered are no matter of time."""
_FETCH_MAY_SAY = DELIVERY_REASONS | FILE_REASONS
_SERVER_MAY_SAY = LOAD_REASONS
_PULL_TROUBLE = frozenset({"ErrImagePull", "ImagePullBackOff"})
_IMAGE_TROUBLE = frozenset(
    {
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
_POD_NAME = re.compile(r'\bpods "[^"]{0,253}"')
_USERINFO = re.compile(r"://[^/@\s]{1,256}@")


class Stage(IntEnum):
    """How far a pod has come; a later stage has passed the earlier ones."""

    PLACING = 0
    """Waits for a node, for its images, or for its node to have the model: a mount that fails shows in no pod's status."""
    DOWNLOADING = 1
    """The init container pulls and verifies."""
    LOADING = 2
    """The artifact is delivered; the server loads it."""
    ANSWERING = 3
    """Ready."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What decisions need of one pod."""

    name: str
    digest: str
    """Value of its digest label."""
    stage: Stage
    going: bool = False
    """It is being deleted."""
    ended: bool = False
    """It was evicted or has finished: it holds no memory and comes back as another pod."""
    failure: Failure | None = None
    uid: str = ""
    node: str = ""
    """Where it runs; empty until it has a node."""
    made: datetime | None = None
    """When it was made, by the API server's clock: that of its node may be years off."""
    mounts: bool = False
    """It mounts the model from its node and fetches nothing."""

    @property
    def ready(self) -> bool:
        """It answers and will go on doing so."""
        return self.stage is Stage.ANSWERING and not self.going


def read_pod(pod: Mapping[str, Any]) -> PodFacts:
    """Read a live pod as the API server sent it."""
    meta, status = _map(pod.get("metadata")), _map(pod.get("status"))
    conditions = {str(_map(item).get("type")): _map(item) for item in _list(status.get("conditions"))}
    fetch = _container(status.get("initContainerStatuses"), "fetch")
    server = _container(status.get("containerStatuses"), "server")
    spec = _map(pod.get("spec"))
    mounts = any(_map(_map(one).get("csi")).get("driver") == CSI_DRIVER for one in _list(spec.get("volumes")))
    stage, failure = _progress(conditions, None if mounts else fetch, server)
    return PodFacts(
        name=str(meta.get("name", "")),
        digest=str(_map(meta.get("labels")).get(LABEL_DIGEST, "")),
        stage=stage,
        going=bool(meta.get("deletionTimestamp")),
        ended=status.get("phase") in ("Failed", "Succeeded"),
        failure=failure,
        uid=str(meta.get("uid", "")),
        node=str(spec.get("nodeName", "")),
        made=_time(meta.get("creationTimestamp")),
        mounts=mounts,
    )


def withheld(deployment: Mapping[str, Any]) -> Failure | None:
    """Return why a live Deployment's pods cannot even be made: a quota, a LimitRange, an admission policy."""
    for item in map(_map, _list(_map(deployment.get("status")).get("conditions"))):
        if item.get("type") == "ReplicaFailure" and item.get("status") == "True":
            # Each try has another pod name, and status must not change with each.
            why = clean(_POD_NAME.sub("a pod", str(item.get("message") or item.get("reason") or "")))
            return Failure(Reason.UNSCHEDULABLE, f"its pods cannot be made: {why}".rstrip(": "), fatal=False)
    return None


def clean(text: object, length: int = MESSAGE_LENGTH) -> str:
    """Return text fit for status: one line, no control or direction characters, no credentials in URLs, cut to length."""
    words = str(text)[: 8 * length]
    words = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in words)
    words = _USERINFO.sub("://…@", " ".join(words.split()))
    return words if len(words) <= length else f"{words[: length - 1]}…"


def _progress(
    conditions: Mapping[str, Mapping[str, Any]], fetch: Mapping[str, Any] | None, server: Mapping[str, Any]
) -> tuple[Stage, Failure | None]:
    """Return how far the pod has come and what stands in its way; ``fetch`` is None where it mounts the model."""
    if conditions.get("Ready", {}).get("status") == "True":
        return Stage.ANSWERING, None
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        why = clean(scheduled.get("message") or scheduled.get("reason") or "no node fits")
        return Stage.PLACING, Failure(Reason.UNSCHEDULABLE, f"no node takes the pod: {why}", fatal=False)
    if fetch is None:
        failure = _failure(server, _SERVER_MAY_SAY, Reason.SERVER_CRASHED, "the inference server")
        began = any(
            _map(server.get(state)).keys() & {"running", "terminated"} for state in ("state", "lastState")
        )
        return (Stage.LOADING if began else Stage.PLACING), failure
    fetched = _map(_map(fetch.get("state")).get("terminated"))
    if fetched.get("exitCode") == 0:
        failure = _failure(server, _SERVER_MAY_SAY, Reason.SERVER_CRASHED, "the inference server")
        return Stage.LOADING, failure
    failure = _failure(fetch, _FETCH_MAY_SAY, Reason.TRANSFER_FAILED, "the delivery of the artifact")
    running = "running" in _map(fetch.get("state"))
    return (Stage.DOWNLOADING if running or failure else Stage.PLACING), failure


def _failure(
    container: Mapping[str, Any], may_say: frozenset[Reason], otherwise: Reason, what: str
) -> Failure | None:
    """Return why a container does not do its work, from what it waits for and how it ended."""
    state, last = _map(container.get("state")), _map(container.get("lastState"))
    waiting = _map(state.get("waiting"))
    why = str(waiting.get("reason") or "")
    if why in _PULL_TROUBLE:
        # The kubelet alternates between the two; status must not.
        image = clean(container.get("image") or "", 256)
        said = f"the image of {what} cannot be pulled: {image}".rstrip(": ")
        return Failure(Reason.IMAGE_PULL_FAILED, f"{said}; the pod's events say why", fatal=False)
    if why in _IMAGE_TROUBLE:
        said = (
            f"the image of {what} cannot be started: {clean(why, 64)}: {clean(waiting.get('message') or '')}"
        )
        return Failure(Reason.IMAGE_PULL_FAILED, said.rstrip(": "), fatal=False)
    ended = _map(state.get("terminated")) or _map(last.get("terminated"))
    if not ended or ended.get("exitCode") == 0:
        return None
    looping = why == "CrashLoopBackOff" or _count(container.get("restartCount")) >= 2
    if ended.get("reason") == "OOMKilled":
        said = f"{what} was killed for using more memory than its limit, or than the node has"
        reason = Reason.OUT_OF_MEMORY if Reason.OUT_OF_MEMORY in may_say else otherwise
        return Failure(reason, said, fatal=looping and reason in LOAD_REASONS)
    named, said = _words(str(ended.get("message") or ""), may_say)
    if named is None:
        exit_code = _count(ended.get("exitCode"))
        said = f"{what} ended with exit code {exit_code}" + (f": {said}" if said else "")
    reason = named or otherwise
    fatal = reason in _FINAL or (looping and reason in LOAD_REASONS)
    return Failure(reason, said or f"{what} failed and gave no message", fatal=fatal)


def _words(message: str, may_say: frozenset[Reason]) -> tuple[Reason | None, str]:
    """Return reason and text of a termination message; no reason when it is not ours, or not one this container may give."""
    last = next((line for line in reversed(message.splitlines()) if line.strip()), "")
    for text in (message, last):
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(told, dict):
            named = told.get("reason")
            return next((known for known in may_say if known == named), None), clean(
                told.get("message") or ""
            )
    return None, clean(last)


def _container(statuses: object, name: str) -> Mapping[str, Any]:
    return next((_map(item) for item in _list(statuses) if _map(item).get("name") == name), {})


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _time(value: object) -> datetime | None:
    """Return a time as the API server writes it; a client may have parsed it."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
