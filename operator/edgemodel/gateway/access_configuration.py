"""Who may call a model, in HAProxy's configuration: tokens, client certificates, what is answered to others. Pure text."""

import hashlib
import json

from edgemodel.gateway import grpc_configuration as grpc
from edgemodel.gateway import shadow_configuration as shadow
from edgemodel.gateway.routes import Access, Route


def server_name(route: Route) -> str:
    """Return the TLS server name by which clients with a certificate come: only there are its authorities believed."""
    return f"{route.name}.{route.namespace}"


def tokens_file(access: Access) -> str:
    """Return the name of the file with a model's tokens, which changes with them."""
    return f"tokens-{_short(chr(10).join(access.tokens or ()))}.lst"


def authorities_file(access: Access) -> str:
    """Return the name of the file with a model's authorities, which changes with them."""
    return f"authorities-{_short(access.client_ca or '')}.pem"


def refusal(code: int, text: str, condition: str, header: str = "", *, by_grpc: bool = False) -> str:
    """Return the rule that answers with ``code``, by HTTP/1.1 or by gRPC."""
    if by_grpc:
        return grpc.refusal(code, text, condition)
    body = json.dumps({"error": f"gateway: {text}"})
    answer = f"http-request return status {code} content-type application/json string '{body}'{header}"
    return f"{answer} {condition}".rstrip()


def guard(route: Route, folder: str, *, outer: bool = False, by_grpc: bool = False) -> list[str]:
    """Return the rules that say who may call; none where everybody may.

    Args:
        route: the model.
        folder: of the files.
        outer: nobody can have been looked at before.
        by_grpc: refuse as gRPC does.
    """
    access = route.access
    if access is None:
        return []
    passed = f" or {shadow.INNER}" if route.shadow_percent and not outer else ""
    if access.closed:
        text = "nobody may call this model: its access Secret is missing or empty"
        return [refusal(403, text, "", by_grpc=by_grpc)]
    lines = []
    if access.tokens is not None:
        listed = f"{folder}/{tokens_file(access)}"
        known = f"unless {{ http_auth_bearer,sha2(256),hex,lower -m str -f {listed} }}{passed}"
        text, bearer = "a bearer token is needed that this model knows", ' hdr WWW-Authenticate "Bearer"'
        lines.append(refusal(401, text, known if access.tokens else "", bearer, by_grpc=by_grpc))
        if not access.tokens:
            return lines
    if access.client_ca is not None:
        lines.append(
            refusal(
                403,
                f"a client certificate is needed, by TLS and the server name {server_name(route)}",
                f"unless {{ ssl_fc_sni -m str {server_name(route)} }} {{ ssl_c_used }} {{ ssl_c_verify 0 }}{passed}",
                by_grpc=by_grpc,
            )
        )
    # What let the caller in is not the model's business.
    return [*lines, "http-request del-header authorization"] if access.tokens is not None else lines


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
