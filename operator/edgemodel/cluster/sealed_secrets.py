"""Pull secrets, sealed to nodes: each once, and again only when its content or the node's key is another.

Sealing the same twice gives two texts, so what was sealed is remembered, or every pass would change every EdgeNode.
Remembered is the sealed text and a hash of what is in it, in memory only: after a restart all is sealed once more, which
changes each EdgeNode once and harms nobody. A hash in the EdgeNode would spare that and let who reads it guess passwords.
"""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from edgemodel.artifact.sealing import pack_documents, pull_secret_context, seal
from edgemodel.cluster.pull_secrets import PullSecrets
from edgemodel.errors import Refused

log = logging.getLogger(__name__)

ModelKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Sealed:
    content: bytes
    key: str
    text: str


class SealedSecrets:
    """What was sealed, by node and model."""

    def __init__(self) -> None:
        self._nodes: dict[str, dict[ModelKey, _Sealed]] = {}

    def sealed(self, node: str, key: str, model: ModelKey, secrets: PullSecrets | None) -> str | None:
        """Return a model's pull secrets sealed to a node's public key; None when there are none, or it has no usable key.

        ``secrets`` is None when they could not be read: what was sealed last then stays.
        """
        known = self._nodes.get(node, {}).get(model)
        if secrets is None:
            return known.text if known is not None and known.key == key else None
        if not secrets.documents or not key:
            return None
        plaintext = pack_documents(secrets.documents)
        content = hashlib.sha256(plaintext).digest()
        if known is not None and (known.content, known.key) == (content, key):
            return known.text
        try:
            text = seal(key, plaintext, pull_secret_context(node, *model))
        except Refused as error:
            log.warning(
                "pull secrets not sealed",
                extra={"kind": "EdgeNode", "object": node, "model": "/".join(model), "error": error.message},
            )
            return None
        self._nodes.setdefault(node, {})[model] = _Sealed(content, key, text)
        return text

    def keep(self, node: str, models: Iterable[ModelKey]) -> None:
        """Forget what was sealed to a node for models other than these."""
        wanted = set(models)
        kept = {model: it for model, it in self._nodes.get(node, {}).items() if model in wanted}
        if kept:
            self._nodes[node] = kept
        else:
            self._nodes.pop(node, None)
