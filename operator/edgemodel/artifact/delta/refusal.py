"""The one refusal of a patch."""

from typing import NoReturn

from edgemodel.errors import Refused

REFUSED = "delta refused: "


def refuse(message: str) -> NoReturn:
    """Refuse a patch: ``message`` names the byte or field, what was expected and what was found.

    Raises:
        Refused: ``DeltaInvalid``, always.
    """
    raise Refused("DeltaInvalid", f"{REFUSED}{message}; the file is fetched in full instead")
