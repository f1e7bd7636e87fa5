"""The CustomResourceDefinitions of ``edgemodel.io``, made from the types of this package.

Here stands what the types can't say: names, scope, printer columns, subresources, and the rules across
fields, which the API server enforces in CEL before an object is ever stored. Printer columns find conditions
by type, never by index. ``hack/generate`` writes the result to ``crds/`` and the chart.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from edgemodel.api.conditions import ConditionType
from edgemodel.api.edge_node import EdgeNode, EdgeNodeSpec, EdgeNodeStatus
from edgemodel.api.meta import GROUP, VERSION
from edgemodel.api.schema import Extras, Rule, prose, rendered, structural
from edgemodel.api.trust_policy import ModelTrustPolicy, ModelTrustPolicySpec, ModelTrustPolicyStatus
from edgemodel.api.v1alpha1 import EdgeModel, EdgeModelSpec, EdgeModelStatus

NAME_MAX = 50
"""Longest name of an EdgeModel: children add a dash and 12 hex digits, and Service names end at 63."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of ``kubectl get``; ``wide`` ones appear with ``-o wide`` only."""

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False

    def render(self) -> dict[str, Any]:
        """Return it as ``additionalPrinterColumns`` holds it."""
        column: dict[str, Any] = {
            "name": self.name,
            "type": self.type,
            "description": self.description,
            "jsonPath": self.path,
        }
        return column | ({"priority": 1} if self.wide else {})


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: its types and how kubectl knows it."""

    model: type[BaseModel]
    spec: type[BaseModel]
    status: type[BaseModel]
    plural: str
    singular: str
    short: str
    namespaced: bool
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = ()
    categories: tuple[str, ...] = ()
    scale: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The kind as manifests write it, ``EdgeModel``."""
        return self.model.__name__

    @property
    def crd_name(self) -> str:
        """The definition's own name, ``edgemodels.edgemodel.io``."""
        return f"{self.plural}.{GROUP}"


def _condition(kind: str, part: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{part}'


_AGE = Column("Age", ".metadata.creationTimestamp", "Time since the object was created.", type="date")

EDGE_MODEL = Kind(
    model=EdgeModel,
    spec=EdgeModelSpec,
    status=EdgeModelStatus,
    plural="edgemodels",
    singular="edgemodel",
    short="em",
    namespaced=True,
    categories=("all",),
    scale={
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
    rules=(
        Rule(
            f"size(self.metadata.name) <= {NAME_MAX}",
            f"metadata.name must be at most {NAME_MAX} characters: "
            "the names of its Service and Deployments are made from it",
            field_path=".metadata.name",
        ),
        Rule(
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name must be a DNS-1035 label, because a Service bears it: "
            "lower-case letters, digits and dashes, starting with a letter",
            field_path=".metadata.name",
        ),
    ),
    columns=(
        Column("Ready", _condition(ConditionType.READY, "status"), "Whether some version answers requests."),
        Column("Status", _condition(ConditionType.READY, "reason"), "Why it is ready or not, in one word."),
        Column("Version", ".status.slots.active.version", "Version that receives the requests."),
        Column(
            "Weight",
            ".status.rollout.weight",
            "Percent of requests that the new version gets while it is judged.",
            type="integer",
        ),
        Column("Replicas", ".status.readyReplicas", "Pods of that version that answer.", type="integer"),
        Column(
            "Nodes",
            ".status.nodes.summary",
            "Nodes that hold the newest verified version, of those it is for.",
        ),
        _AGE,
        Column("Digest", ".status.slots.active.digest", "Manifest digest of the active version.", wide=True),
        Column(
            "Candidate",
            ".status.slots.candidate.version",
            "Version that is being started and judged.",
            wide=True,
        ),
        Column("URL", ".status.url", "Where the model answers inside the cluster.", wide=True),
        Column("Message", _condition(ConditionType.READY, "message"), "Why, for a person.", wide=True),
    ),
)

MODEL_TRUST_POLICY = Kind(
    model=ModelTrustPolicy,
    spec=ModelTrustPolicySpec,
    status=ModelTrustPolicyStatus,
    plural="modeltrustpolicies",
    singular="modeltrustpolicy",
    short="mtp",
    namespaced=False,
    columns=(
        Column("Mode", ".spec.mode", "Enforce refuses what does not pass; Warn only says so."),
        Column("Valid", _condition("Valid", "status"), "Whether every key can be read."),
        Column("Models", ".status.models", "Number of EdgeModels this policy governs.", type="integer"),
        _AGE,
        Column("Message", _condition("Valid", "message"), "Why it is valid or not.", wide=True),
    ),
)

EDGE_NODE = Kind(
    model=EdgeNode,
    spec=EdgeNodeSpec,
    status=EdgeNodeStatus,
    plural="edgenodes",
    singular="edgenode",
    short="en",
    namespaced=False,
    columns=(
        Column("Ready", _condition("Ready", "status"), "Whether the node's agent serves mounts."),
        Column("Models", ".status.modelsReady", "Models that are ready, of those wanted."),
        Column("Store", ".status.store.summary", "Bytes that models take, of those they may take."),
        _AGE,
        Column("Agent", ".status.agentVersion", "Version of the agent.", wide=True),
        Column("Message", _condition("Ready", "message"), "Why it is ready or not.", wide=True),
    ),
)

KINDS = (EDGE_MODEL, MODEL_TRUST_POLICY, EDGE_NODE)

_MODEL_KEYS = ("namespace", "name", "digest")

_EXTRAS = {
    "EdgeModelSpec": Extras(
        field_rules={
            "image": (
                Rule(
                    r"!self.matches('\\s')",
                    "image must not hold white space: expected registry/repository:tag or …@sha256:…",
                ),
                Rule(
                    r"!self.matches('^[a-zA-Z][a-zA-Z0-9+.-]*://')",
                    "image must not start with a scheme such as https://: expected registry/repository:tag",
                ),
                Rule(
                    "!self.contains('@') || self.matches('^[^@]+@sha256:[0-9a-f]{64}$')",
                    "image is pinned by @sha256: and 64 lower-case hex digits",
                ),
            ),
            "modelFile": (
                Rule(
                    r"!self.startsWith('/') && !self.matches('(^|/)\\.\\.(/|$)')",
                    "modelFile is a path inside the artifact: relative, and without ..",
                ),
            ),
        },
        list_keys={"pullSecrets": "name"},
    ),
    "RolloutSpec": Extras(
        rules=(
            Rule(
                "self.strategy == 'Canary' || !has(self.steps) || size(self.steps) == 0",
                "steps are for strategy Canary only",
                field_path=".steps",
            ),
        ),
        field_rules={
            "steps": (
                Rule(
                    "self.map(step, step.weight).isSorted()",
                    "the weights of steps must not go down: a version that turns out bad is taken back at once",
                ),
            ),
        },
    ),
    "RolloutStatus": Extras(list_keys={"gate": "name"}),
    "EdgeModelStatus": Extras(list_keys={"conditions": "type", "nodeStatuses": "node"}),
    "ModelTrustPolicySpec": Extras(
        rules=(
            Rule(
                "self.threshold <= size(self.authorities)",
                "threshold must not exceed the number of authorities: nothing could ever pass",
                field_path=".threshold",
            ),
        ),
        list_keys={"authorities": "name"},
        sets=frozenset({"formats", "revokedDigests"}),
    ),
    "ModelTrustPolicyStatus": Extras(list_keys={"conditions": "type"}),
    "PolicyMatch": Extras(sets=frozenset({"images"})),
    "EdgeNodeSpec": Extras(list_keys={"models": _MODEL_KEYS, "policies": "name"}),
    "EdgeNodeStatus": Extras(list_keys={"models": _MODEL_KEYS, "conditions": "type"}),
    "WantedModel": Extras(sets=frozenset({"policies"})),
    "Window": Extras(
        field_rules={
            "schedule": (
                Rule(
                    r"self.matches('^[^\\s]+([ \\t]+[^\\s]+){4}$')",
                    "schedule has five fields: minute hour day-of-month month day-of-week, such as 0 2 * * 1-5",
                ),
            ),
            "duration": (
                Rule(
                    "!self.matches('^(0+(ms|s|m|h|d))+$')",
                    "duration must be longer than nothing, such as 3h30m: the window would never be open",
                ),
            ),
            "timeZone": (
                Rule(
                    "self.matches('^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$')",
                    "timeZone is a name of the IANA time zone database, such as Europe/Vienna or UTC",
                ),
            ),
        },
    ),
    "LabelSelector": Extras(atomic=True),
    "Authority": Extras(
        rules=(
            Rule(
                "has(self.publicKey) != has(self.publicKeySecret)",
                "an authority has exactly one of publicKey and publicKeySecret",
            ),
            Rule(
                "!has(self.notBefore) || !has(self.notAfter) || self.notBefore < self.notAfter",
                "notBefore must be earlier than notAfter",
                field_path=".notAfter",
            ),
        ),
        field_rules={
            "publicKey": (
                Rule(
                    "self.contains('-----BEGIN PUBLIC KEY-----')",
                    "publicKey must be a PEM block that starts with -----BEGIN PUBLIC KEY-----; "
                    "a private key never belongs here",
                ),
            ),
        },
    ),
}


def definition(kind: Kind) -> dict[str, Any]:
    """Return the CustomResourceDefinition of ``kind``, ready to be written as YAML."""
    subresources: dict[str, Any] = {"status": {}}
    if kind.scale:
        subresources["scale"] = dict(kind.scale)
    names: dict[str, Any] = {
        "kind": kind.name,
        "listKind": f"{kind.name}List",
        "plural": kind.plural,
        "singular": kind.singular,
        "shortNames": [kind.short],
    }
    if kind.categories:
        names["categories"] = list(kind.categories)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name},
        "spec": {
            "group": GROUP,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": subresources,
                    "additionalPrinterColumns": [column.render() for column in kind.columns],
                    "schema": {"openAPIV3Schema": schema(kind)},
                }
            ],
        },
    }


def definitions(kinds: Iterable[Kind] = KINDS) -> dict[str, dict[str, Any]]:
    """Return all definitions by name."""
    return {kind.crd_name: definition(kind) for kind in kinds}


def schema(kind: Kind) -> dict[str, Any]:
    """Return the structural schema of ``kind``, from ``apiVersion`` down to status."""
    result: dict[str, Any] = {
        "type": "object",
        "description": prose(kind.model.__doc__ or ""),
        **({"required": ["spec"]} if kind.model.model_fields["spec"].is_required() else {}),
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always {GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"Always {kind.name}."},
            # The name is spelled out only so that rules about it can point at it.
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": structural(kind.spec, _EXTRAS, defaults=True),
            "status": structural(kind.status, _EXTRAS, defaults=False),
        },
    }
    if kind.rules:
        result["x-kubernetes-validations"] = rendered(kind.rules)
    return result
