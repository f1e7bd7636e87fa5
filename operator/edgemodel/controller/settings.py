"""Everything about the operator that can be tuned, from a YAML file and from the environment.

The environment wins over the file, the file over the defaults. A field ``node_image`` is ``nodeImage`` in
the file and ``EDGEMODEL_NODE_IMAGE`` in the environment. An unknown field in the file, or a value of the
wrong shape, ends the start with a message that names it. ``docs/reference/operator-settings.md`` is the
same list for readers.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from edgemodel import __version__
from edgemodel.artifact.registry_settings import RegistrySettings
from edgemodel.cluster.access import DEFAULT_NAME
from edgemodel.errors import Stalled
from edgemodel.reconcile.observed import Settings as ChildSettings

PREFIX = "EDGEMODEL_"


class OperatorSettings(BaseModel):
    """What the operator is started with."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
    )

    server_image: str = Field(default=f"edgemodel/server:{__version__}", min_length=1)
    """Image of the inference server, when an EdgeModel names none."""
    node_image: str = Field(default=f"edgemodel/node:{__version__}", min_length=1)
    """Image of the init container that fetches and verifies the model."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Pull policy of both images."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels to add to every child."""
    registries: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """How registries are reached, by ``host[:port]``: ``plainHTTP: true``, or ``ca`` with the PEM of its
    authorities.
    """
    namespaces: list[str] = Field(default_factory=list)
    """Namespaces whose EdgeModels are served; empty means all."""
    workers: int = Field(default=4, ge=1, le=64)
    """Passes that run at the same time, each for another EdgeModel."""
    resync_interval: float = Field(default=600.0, ge=10)
    """Seconds between two looks at every EdgeModel though nothing happened; reads only."""
    leader_election: bool = False
    """Take a Lease before acting; needed when more than one replica runs. Without it an idle operator
    writes nothing.
    """
    lease_namespace: str | None = None
    """Namespace of the Lease; that of the operator's pod when empty."""
    node_delivery: bool = True
    """Tell node agents what to hold. One operator of a cluster may: EdgeNodes are cluster-wide, and each is written whole.
    Without it pods fetch their model themselves.
    """
    node_namespace: str | None = None
    """Namespace in which agents renew their Leases; that of the operator's pod when empty."""
    node_look_interval: float = Field(default=30.0, ge=1, le=300)
    """Seconds between two looks at these Leases; reads only. So much later than its three missed beats a node is found
    to be offline.
    """
    gateway: bool = False
    """Lead each model's Service to the gateway instead of to pods; the chart installs one (``gateway.enabled``)."""
    gateway_namespace: str | None = None
    """Namespace of the gateway's pods and of its Secrets; that of the operator's pod when empty."""
    gateway_selector: dict[str, str] = Field(
        default_factory=lambda: {"app.kubernetes.io/component": "gateway"}, min_length=1
    )
    """Labels by which the gateway's pods are known."""
    gateway_access_secret: str = Field(default=DEFAULT_NAME, min_length=1)
    """Secret that tells the gateway who may call which model."""
    lease_name: str = Field(default="edgemodel-operator", min_length=1)
    """Name of the Lease."""
    lease_duration: float = Field(default=15.0, gt=0)
    """Seconds a standby watches a silent leader before it takes over."""
    lease_renew_deadline: float = Field(default=10.0, gt=0)
    """Seconds after its last renewal at which a leader stops acting."""
    lease_retry: float = Field(default=2.0, gt=0)
    """Seconds between two renewals."""
    host: str = "0.0.0.0"  # noqa: S104 - scraped and probed from other addresses
    """Address on which metrics and health are served."""
    port: int = Field(default=8081, ge=0, le=65535)
    """Port of ``/metrics``, ``/healthz`` and ``/readyz``; 0 picks a free one and logs it."""
    shutdown_timeout: float = Field(default=5.0, gt=0, le=20)
    """Seconds that running passes get to end when the operator is stopped."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important log lines that are written."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        RegistrySettings.from_mapping(self.registries)
        if not self.lease_duration > self.lease_renew_deadline > self.lease_retry:
            raise ValueError("expected leaseDuration > leaseRenewDeadline > leaseRetry")
        return self

    def children(self) -> ChildSettings:
        """Return the part that child objects depend on."""
        return ChildSettings(
            server_image=self.server_image,
            node_image=self.node_image,
            image_pull_policy=self.image_pull_policy,
            labels=self.labels,
        )

    def registry_settings(self) -> RegistrySettings:
        """Return how registries are reached."""
        return RegistrySettings.from_mapping(self.registries)


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> OperatorSettings:
    """Read the settings.

    Args:
        path: the YAML file; ``$EDGEMODEL_SETTINGS`` when None; no file when that is empty too.
        environment: the process's environment when None.

    Raises:
        Stalled: ``InvalidSpec``; the message names the file or variable, the field and what is wrong.
    """
    environment = os.environ if environment is None else environment
    if path is None and environment.get(f"{PREFIX}SETTINGS"):
        path = Path(environment[f"{PREFIX}SETTINGS"])
    values: dict[str, Any] = {}
    if path is not None:
        values |= _from_file(path)
    for name, field in OperatorSettings.model_fields.items():
        text = environment.get(PREFIX + name.upper())
        if text:
            values.pop(name, None)
            values[field.alias or name] = _parse(text, structured=_structured(field.annotation))
    try:
        return OperatorSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        raise Stalled("InvalidSpec", f"operator settings: {where}: {first['msg']}") from error


def _from_file(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise Stalled("InvalidSpec", f"operator settings file {path}: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        found = type(document).__name__
        raise Stalled("InvalidSpec", f"operator settings file {path}: expected fields, found a {found}")
    return document


def _structured(annotation: object) -> bool:
    return getattr(annotation, "__origin__", None) in (dict, list)


def _parse(text: str, *, structured: bool) -> Any:
    if not structured:
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value
