"""What failures of a registry mean, as errors a person can act on: which host, what happened, what to do.

No secret is in any of them: neither a header, nor a body, nor a URL's query (blob stores sign URLs there).
Source: RFC 9110 §10.2.3 (Retry-After), §15 (status codes).
"""

import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from edgemodel.errors import Transient

NETWORK_ERRORS = (httpx.TransportError, OSError)
"""What a connection can raise; some TLS failures come through httpx as the ``ssl.SSLError`` they are, an OSError."""
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""
_LONGEST_WAIT = 86_400.0  # a registry may ask for a pause, not for silence


def unreachable(host: str, what: str, error: Exception) -> Transient:
    """Say what a failure below HTTP means."""
    certificate = certificate_failure(error)
    if certificate is not None:
        advice = "give its CA (ca in the registry settings, --ca-file on the command line), or mend the certificate"
        return Transient(
            "RegistryUnreachable",
            f"registry {host}: its certificate is not trusted ({certificate.verify_message}); {advice}",
        )
    wrong = str(error) or type(error).__name__
    if _speaks_no_tls(error):
        advice = (
            "it speaks plain HTTP; if that is meant, say so "
            "(plainHTTP in the registry settings, --plain-http on the command line)"
        )
    elif isinstance(error, httpx.TimeoutException):
        advice = "it did not answer in time; check the network and the registry's load"
    else:
        advice = "check its name and port, and that it can be reached from here"
    return Transient(
        "RegistryUnreachable", f"registry {host} could not be reached for {what} ({wrong}); {advice}"
    )


def lasting(error: Exception) -> bool:
    """Say that trying again cannot help: a certificate nobody trusts, or no TLS at all on the other side."""
    return certificate_failure(error) is not None or _speaks_no_tls(error)


def _speaks_no_tls(error: Exception) -> bool:
    return "WRONG_VERSION_NUMBER" in str(error) or "record layer failure" in str(error)


def refused(host: str, what: str, response: httpx.Response) -> Transient:
    """Say what a status means that nobody expected."""
    status = response.status_code
    if status == 404:
        return Transient(
            "NotFound", f"registry {host} has no {what}; check the repository's name, tag and digest"
        )
    if status in (401, 403):
        return Transient(
            "AuthenticationFailed",
            f"registry {host} refused {what} with status {status}; check the credentials",
        )
    if status == 429:
        reason, advice = "RegistryUnreachable", "it limits how often it may be asked; asked again later"
    elif status >= 500 or status in RETRIED:
        reason, advice = "RegistryUnreachable", "the fault is on its side; tried again later"
    else:
        reason, advice = "TransferFailed", "it does not speak the OCI distribution protocol as expected"
    return Transient(
        reason,
        f"registry {host} answered {what} with status {status}; {advice}",
        retry_after=retry_after(response.headers.get("Retry-After", ""), datetime.now(UTC)),
    )


def retry_after(value: str, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for; None when it cannot be read."""
    if value.strip().isdigit():
        return min(float(value), _LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - now).total_seconds()), _LONGEST_WAIT)


def joined(base: httpx.URL, address: str) -> httpx.URL:
    """Return the URL that a registry gave, relative or whole.

    Raises:
        Transient: ``TransferFailed`` when it cannot be read.
    """
    try:
        return base.join(address)
    except (httpx.InvalidURL, ValueError):
        raise Transient(
            "TransferFailed",
            f"registry {base.netloc.decode()} gave an address that is none; it does not speak the OCI distribution protocol",
        ) from None


def bad_redirect(origin: httpx.URL, what: str, how: str) -> Transient:
    """Say that a redirect was not followed."""
    return Transient(
        "TransferFailed",
        f"registry {origin.netloc.decode()} redirects {what} {how}; "
        "expected at most a few redirects and never away from https",
    )


def certificate_failure(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Find the certificate failure that httpx and httpcore wrap; None when it was something else."""
    for _ in range(8):
        if error is None or isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None
