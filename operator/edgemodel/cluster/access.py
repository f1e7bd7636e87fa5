"""Who may call which model: from the Secrets that EdgeModels name to the one Secret that the gateway reads.

The gateway has no right to read Secrets of models' namespaces. It gets, in one Secret of the operator's namespace, under
``<namespace>.<name>.json``::

    {"tokens": ["<sha256 of a token, 64 hex digits>", …], "clientCA": "<PEM certificates>"}

A field is there when the EdgeModel asks for it. A model that asks for something and whose Secret is missing, or holds
nothing of use, has no entry, and the gateway lets nobody in there: no model is ever open for want of a Secret.

The Secret itself is made by the chart; here only its content is applied, so that the operator needs no right to make Secrets
(which would let it have a token of any account in its namespace).
"""

import asyncio
import base64
import binascii
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from edgemodel.api.meta import CHILD_MANAGER
from edgemodel.api.traffic import Access
from edgemodel.cluster.client import ApiServer, Forbidden, Gone
from edgemodel.cluster.kinds import EDGE_MODEL, SECRET

log = logging.getLogger(__name__)

DEFAULT_NAME = "edgemodel-gateway-access"
CA_KEY = "ca.crt"
MAX_TOKENS = 256
"""Tokens of one model; more are a mistake, and the Secret of all models has a mebibyte."""
MAX_CA_BYTES = 64 << 10
MAX_BYTES = 700_000
"""All entries together: base64 makes four thirds of it, and the API server takes a mebibyte."""
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")

ModelKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """What the gateway is told of one model."""

    tokens: tuple[str, ...] | None = field(default=None, repr=False)
    """Sha256 of each token that is let in; None where no token is asked for."""
    client_ca: str | None = None
    """PEM certificates of the authorities whose clients are let in; None where no certificate is asked for."""
    problem: str = ""
    """Why nobody can be let in; then there is no entry."""

    def to_json(self) -> str:
        """Write it for the gateway: the same entry is the same text."""
        found: dict[str, Any] = {}
        if self.tokens is not None:
            found["tokens"] = list(self.tokens)
        if self.client_ca is not None:
            found["clientCA"] = self.client_ca
        return json.dumps(found, sort_keys=True, separators=(",", ":"))


async def read_entry(api: ApiServer, namespace: str, access: Access | None) -> Entry | None:
    """Read what ``spec.access`` names; None where it names nothing.

    Raises:
        Transient: the API server failed; what is not known must not be taken for absent.
    """
    if access is None or not (access.bearer_tokens or access.client_certificates):
        return None
    tokens: tuple[str, ...] | None = None
    client_ca: str | None = None
    problems = []
    if access.bearer_tokens is not None:
        name = access.bearer_tokens.secret_name
        tokens, problem = _tokens(name, await _data(api, namespace, name))
        problems.append(problem)
    if access.client_certificates is not None:
        name = access.client_certificates.secret_name
        client_ca, problem = _authorities(name, await _data(api, namespace, name))
        problems.append(problem)
    told = " ".join(problem for problem in problems if problem)
    return Entry(problem=told) if told else Entry(tokens, client_ca)


async def _data(api: ApiServer, namespace: str, name: str) -> Mapping[str, str] | str:
    """Return a Secret's data, or why there is none."""
    try:
        secret = await api.get(SECRET, namespace, name)
    except Forbidden:
        return f"the operator may not read Secret {name} in namespace {namespace}."
    if secret is None:
        return f"Secret {name}, which spec.access names, is missing in this namespace."
    return dict(secret.get("data") or {})


def _tokens(name: str, data: Mapping[str, str] | str) -> tuple[tuple[str, ...], str]:
    if isinstance(data, str):
        return (), data
    # Authorities are no secret, and the same Secret may hold both.
    values = [_decoded(value).strip() for key, value in data.items() if key != CA_KEY]
    hashes = tuple(sorted({hashlib.sha256(value).hexdigest() for value in values if value}))
    if not hashes:
        return (), f"Secret {name} holds no token: expected each key's value to be one."
    if len(hashes) > MAX_TOKENS:
        return (), f"Secret {name} holds {len(hashes)} tokens; expected at most {MAX_TOKENS}."
    return hashes, ""


def _authorities(name: str, data: Mapping[str, str] | str) -> tuple[str, str]:
    if isinstance(data, str):
        return "", data
    text = _decoded(data.get(CA_KEY, ""))
    if not text:
        return "", f"Secret {name} has no key {CA_KEY} with the certificates of authorities."
    if len(text) > MAX_CA_BYTES:
        return "", f"Secret {name}: {CA_KEY} has {len(text)} bytes; expected at most {MAX_CA_BYTES}."
    from cryptography import x509  # megabytes, and few sites ask for certificates

    blocks = _PEM.findall(text)
    try:
        for block in blocks:
            x509.load_pem_x509_certificate(block)
    except ValueError:
        blocks = []
    if not blocks:
        return "", f"Secret {name}: {CA_KEY} holds something else than PEM certificates."
    # What stands around them is nobody's business: a private key, say.
    return b"\n".join((*blocks, b"")).decode("ascii"), ""


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return b""


class AccessSecret:
    """Keeps the gateway's Secret as EdgeModels and their Secrets are.

    Args:
        api: the API server.
        namespace: the operator's.
        name: of the Secret.
        namespaces: those whose EdgeModels are served; empty means all.
    """

    def __init__(
        self,
        api: ApiServer,
        *,
        namespace: str,
        name: str = DEFAULT_NAME,
        namespaces: tuple[str, ...] = (),
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._namespaces = namespaces
        self._problems: dict[ModelKey, str] = {}
        self.guarded = 0
        """How many EdgeModels say who may call them."""

    async def update(self) -> tuple[bool, frozenset[ModelKey]]:
        """Bring it up to date; return whether anything was written, and the models whose state is another than before.

        Raises:
            Transient: the API server failed, or the Secret is not there.
        """
        entries = await self._read()
        before, self._problems = self._problems, {key: entry.problem for key, entry in entries.items()}
        changed = frozenset(
            key for key in before.keys() | entries.keys() if before.get(key) != self._problems.get(key)
        )
        self.guarded = len(entries)
        return await self._apply(entries), changed

    async def _read(self) -> dict[ModelKey, Entry]:
        models: list[tuple[ModelKey, Access]] = []
        for namespace in self._namespaces or (None,):
            for live in await self._api.list(EDGE_MODEL, namespace):
                meta, found = live["metadata"], (live.get("spec") or {}).get("access")
                if not found:
                    continue
                try:
                    access = Access.model_validate(found)
                except ValidationError:
                    access = None  # of another release; its own pass says so, and it has no entry
                if access is not None:
                    models.append(((str(meta["namespace"]), str(meta["name"])), access))
        read = await asyncio.gather(
            *(read_entry(self._api, namespace, access) for (namespace, _), access in models)
        )
        return {key: entry for (key, _), entry in zip(models, read, strict=True) if entry is not None}

    async def _apply(self, entries: Mapping[ModelKey, Entry]) -> bool:
        wanted = {f"{key[0]}.{key[1]}.json": text for key, text in _fitting(entries)}
        data = {key: base64.b64encode(text.encode()).decode() for key, text in sorted(wanted.items())}
        live = await self._api.get(SECRET, self._namespace, self._name)
        if live is None and not data:
            return False
        if live is None:
            raise Gone(
                "Gone",
                f"Secret {self._name} is missing in namespace {self._namespace}, and the gateway lets nobody in that has to "
                "show who he is; the chart makes it: upgrade the release",
            )
        there = live.get("data") or {}
        if there == data:
            return False
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self._name, "namespace": self._namespace, "uid": live["metadata"]["uid"]},
            "data": data,
        }
        applied = await self._api.apply(SECRET, manifest, manager=CHILD_MANAGER)
        foreign = (applied.get("data") or {}).keys() - data.keys()
        if foreign:
            # Of another manager: whoever can write here could let himself in at any model.
            log.warning("entries of others are taken out", extra={"kind": "Secret", "object": self._name})
            patch = {"data": dict.fromkeys(foreign)}
            await self._api.merge(SECRET, self._namespace, self._name, patch)
        return True


def _fitting(entries: Mapping[ModelKey, Entry]) -> Iterable[tuple[ModelKey, str]]:
    """Yield the entries that there is room for, in the order of their names."""
    room = MAX_BYTES
    for key, entry in sorted(entries.items()):
        if entry.problem:
            continue
        text = entry.to_json()
        room -= len(text)
        if room < 0:
            log.error("no room for who may call a model: nobody is let in", extra={"model": "/".join(key)})
            continue
        yield key, text
