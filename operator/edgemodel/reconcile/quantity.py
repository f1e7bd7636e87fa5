"""Kubernetes quantities (``500m``, ``0.5``, ``1Gi``, ``1e3``) as exact numbers: two spellings of one amount are equal.

Grammar: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from fractions import Fraction

_QUANTITY = re.compile(
    r"([+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40}))(?:([eE][+-]?\d{1,2})|([KMGTPE]i|[numkMGTPE]?))"
)
_SUFFIXES = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "k": Fraction(10**3),
    **{letter: Fraction(10 ** (3 * power)) for power, letter in enumerate("MGTPE", start=2)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", start=1)},
}


def amount(quantity: object) -> Fraction | None:
    """Return the exact number a quantity stands for; None when it is not one."""
    if isinstance(quantity, bool) or not isinstance(quantity, int | float | str):
        return None
    match = _QUANTITY.fullmatch(str(quantity))
    if match is None:
        return None
    number, exponent, suffix = match.groups()
    # A trailing point, as in "1.", is a quantity and not a Fraction.
    value = Fraction(number.rstrip(".") if number.endswith(".") else number)
    return value * Fraction(10) ** int(exponent[1:]) if exponent else value * _SUFFIXES[suffix or ""]
