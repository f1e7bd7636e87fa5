"""Pods as kubelets report them, one sentence a case; and pods as nobody should report them."""

import json
from typing import Any

import pytest

from edgemodel.api.conditions import Reason
from edgemodel.reconcile.pods import MESSAGE_LENGTH, PodFacts, Stage, clean, read_pod
from tests.unit.reconcile.world import (
    DOWNLOADING,
    LOADING,
    READY,
    UNSCHEDULABLE,
    fetch_ended,
    server_ended,
)


def read(status: dict[str, Any], **metadata: Any) -> PodFacts:
    labels = {"edgemodel.io/digest": "0123456789abcdef"}
    return read_pod({"metadata": {"name": "p", "labels": labels, **metadata}, "status": status})


def said(reason: str, message: str = "why") -> str:
    return json.dumps({"reason": reason, "message": message})


def image_trouble(why: str, where: str = "initContainerStatuses") -> dict[str, Any]:
    name = "fetch" if where == "initContainerStatuses" else "server"
    waiting = {"waiting": {"reason": why, "message": 'Back-off pulling image "example.org/node:1"'}}
    base = DOWNLOADING if name == "fetch" else LOADING
    container = {"name": name, "image": "example.org/node:1", "restartCount": 0, "state": waiting}
    return {**base, where: [container]}


STAGES = {
    "nothing is known yet": ({}, Stage.PLACING),
    "pending": ({"phase": "Pending"}, Stage.PLACING),
    "no node takes it": (UNSCHEDULABLE, Stage.PLACING),
    "the init container waits": (image_trouble("PodInitializing"), Stage.PLACING),
    "the init container runs": (DOWNLOADING, Stage.DOWNLOADING),
    "the init container waits to be tried again": (fetch_ended(), Stage.DOWNLOADING),
    "the server runs": (LOADING, Stage.LOADING),
    "the server waits to be tried again": (server_ended(), Stage.LOADING),
    "ready": (READY, Stage.ANSWERING),
}


@pytest.mark.parametrize(("status", "stage"), STAGES.values(), ids=STAGES.keys())
def test_stage(status: dict[str, Any], stage: Stage) -> None:
    assert read(status).stage is stage


FAILURES: dict[str, tuple[dict[str, Any], tuple[Reason, bool] | None]] = {
    "a ready pod has no failure, whatever it went through": (
        {**server_ended(said("ModelLoadFailed")), "conditions": READY["conditions"]},
        None,
    ),
    "a pod that loads has none": (LOADING, None),
    "no node takes it": (UNSCHEDULABLE, (Reason.UNSCHEDULABLE, False)),
    "fetch: the image cannot be pulled": (
        image_trouble("ImagePullBackOff"),
        (Reason.IMAGE_PULL_FAILED, False),
    ),
    "fetch: the first try to pull the image failed": (
        image_trouble("ErrImagePull"),
        (Reason.IMAGE_PULL_FAILED, False),
    ),
    "server: the image cannot be pulled": (
        image_trouble("ErrImageNeverPull", "containerStatuses"),
        (Reason.IMAGE_PULL_FAILED, False),
    ),
    "a container that cannot be made": (
        image_trouble("CreateContainerConfigError"),
        (Reason.IMAGE_PULL_FAILED, False),
    ),
    "fetch: a refusal may be of policies that have changed since": (
        fetch_ended(said("KeyRevoked")),
        (Reason.KEY_REVOKED, False),
    ),
    "fetch: altered bytes are final": (fetch_ended(said("DigestMismatch")), (Reason.DIGEST_MISMATCH, True)),
    "fetch: the registry may come back": (
        fetch_ended(said("RegistryUnreachable")),
        (Reason.REGISTRY_UNREACHABLE, False),
    ),
    "fetch: a full disk may be cleared": (fetch_ended(said("DiskFull")), (Reason.DISK_FULL, False)),
    "fetch: which file to load is not clear": (
        fetch_ended(said("AmbiguousModelFile")),
        (Reason.AMBIGUOUS_MODEL_FILE, True),
    ),
    "fetch: no reason given": (fetch_ended("Traceback"), (Reason.TRANSFER_FAILED, False)),
    "fetch: a reason that only a server may give": (
        fetch_ended(said("ServerCrashed")),
        (Reason.TRANSFER_FAILED, False),
    ),
    "server: a file that cannot be loaded is final at once": (
        server_ended(said("UnsupportedOpset"), waiting=""),
        (Reason.UNSUPPORTED_OPSET, True),
    ),
    "server: one crash may pass": (server_ended("boom", waiting=""), (Reason.SERVER_CRASHED, False)),
    "server: a crash loop does not": (server_ended("boom"), (Reason.SERVER_CRASHED, True)),
    "server: nor does a second restart": (
        server_ended("boom", restarts=2, waiting=""),
        (Reason.SERVER_CRASHED, True),
    ),
    "server: killed for its memory": (
        server_ended(exit_code=137, reason="OOMKilled"),
        (Reason.OUT_OF_MEMORY, True),
    ),
    "server: killed for its memory, once": (
        server_ended(exit_code=137, reason="OOMKilled", waiting=""),
        (Reason.OUT_OF_MEMORY, False),
    ),
    "server: a reason that only fetch may give": (
        server_ended(said("SignatureInvalid"), waiting=""),
        (Reason.SERVER_CRASHED, False),
    ),
    "server: a reason that is none of ours": (
        server_ended(said("Serving"), waiting=""),
        (Reason.SERVER_CRASHED, False),
    ),
    "server: it ended as it should": (server_ended(exit_code=0, waiting=""), None),
}


@pytest.mark.parametrize(("status", "expected"), FAILURES.values(), ids=FAILURES.keys())
def test_failure(status: dict[str, Any], expected: tuple[Reason, bool] | None) -> None:
    failure = read(status).failure
    assert (None if failure is None else (failure.reason, failure.fatal)) == expected


def message(status: dict[str, Any]) -> str:
    failure = read(status).failure
    assert failure is not None
    return failure.message


def test_a_termination_message_reaches_status_as_it_is() -> None:
    text = "model.onnx needs opset 99; this server knows up to 23"
    assert message(server_ended(said("UnsupportedOpset", text))) == text


def test_of_a_traceback_the_last_line_and_the_exit_code_are_told() -> None:
    log = 'Traceback (most recent call last):\n  File "x"\nMemoryError: no room\n\n'
    expected = "the inference server ended with exit code 3: MemoryError: no room"
    assert message(server_ended(log, exit_code=3)) == expected


def test_of_a_log_of_json_lines_the_last_message_is_told() -> None:
    log = '{"level": "INFO", "message": "starting"}\n{"level": "ERROR", "message": "port 8080 is taken"}\n'
    assert message(server_ended(log)) == "the inference server ended with exit code 1: port 8080 is taken"


def test_an_image_that_cannot_be_pulled_is_named() -> None:
    assert "example.org/node:1" in message(image_trouble("ImagePullBackOff"))


def test_a_pull_that_is_tried_again_and_again_is_told_in_the_same_words() -> None:
    first = image_trouble("ErrImagePull")
    first["initContainerStatuses"][0]["state"]["waiting"]["message"] = "rpc error: not found"
    assert message(first) == message(image_trouble("ImagePullBackOff"))


def test_why_no_node_takes_the_pod_is_told() -> None:
    assert "Insufficient memory" in message(UNSCHEDULABLE)


def test_a_pod_that_is_going_is_not_ready() -> None:
    facts = read(READY, deletionTimestamp="2026-01-01T00:00:00Z")
    assert facts.going
    assert not facts.ready


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_an_evicted_pod_has_ended(phase: str) -> None:
    assert read({"phase": phase, "reason": "Evicted"}).ended


def test_hostile_text_is_made_harmless() -> None:
    text = "a\x1b[31mred\x00\u202eevil\r\nnext https://user:hunter2@registry/x " + "y" * 5000
    cleaned = clean(text)
    assert cleaned.startswith("a [31mred evil next https://…@registry/x yyy")
    assert "hunter2" not in cleaned
    assert len(cleaned) == MESSAGE_LENGTH


@pytest.mark.parametrize(
    "hostile",
    [
        '{"reason": ["ModelLoadFailed"]}',
        '{"reason": {}}',
        "[" * 100_000,
        "null",
        "7",
        '{"message": {"a": 1}}',
        "\x00",
    ],
)
def test_a_message_that_is_not_ours_is_a_crash(hostile: str) -> None:
    failure = read(server_ended(hostile)).failure
    assert failure is not None
    assert failure.reason is Reason.SERVER_CRASHED
    assert len(failure.message) < 2 * MESSAGE_LENGTH
