"""Copies in the configuration: nothing where no model asks for them, and then no way past who may call."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edgemodel.gateway.configuration import Place, files
from edgemodel.gateway.routes import Access, Route, Server
from tests.gateway.certificates import identity

A, B = Server("pod-a", "10.42.0.1", 8080), Server("pod-b", "10.42.0.2", 8080)
PLAIN = Route("audio", "words", 20002, active=(A,))
COPIED = Route(
    "vision", "detector", 20001, active=(A,), candidate=(B,), weight=10, shadow_percent=20, shadow=20
)
GUARDED = replace(COPIED, name="guarded", port=20004, access=Access(("a" * 64,), "authorities\n"))


def sections(*routes: Route) -> dict[str, str]:
    text = files(routes, Place("/state"))["haproxy.cfg"]
    parts = re.split(r"^(?=frontend |backend |defaults|global)", text, flags=re.MULTILINE)
    return {part.split("\n", 1)[0]: part for part in parts}


def test_where_nothing_is_copied_there_is_nothing_of_it() -> None:
    found = files([PLAIN], Place("/state"))
    assert "shadow" not in found["haproxy.cfg"]
    assert "shadows.map" not in found


def test_a_model_that_is_copied_has_a_backend_of_its_own_and_others_have_none() -> None:
    found = files([PLAIN, COPIED], Place("/state"))
    assert found["shadows.map"] == "vision.detector 20\n"
    assert {name for name in sections(PLAIN, COPIED) if "shadow" in name} == {
        "frontend shadowed",
        "backend vision.detector.shadow",
    }


def test_who_may_call_is_looked_at_before_a_request_gets_to_the_agent_and_not_again() -> None:
    found = sections(GUARDED)
    inner = "or { fe_name -m str shadowed }"
    assert inner not in found["backend vision.guarded.shadow"]
    for name in ("active", "candidate"):
        refusals = [
            it for it in found[f"backend vision.guarded.{name}"].splitlines() if "return status 40" in it
        ]
        assert refusals
        assert all(it.endswith(inner) for it in refusals)
    for name in ("active", "candidate"):
        plain = sections(replace(GUARDED, shadow_percent=0, shadow=0), COPIED)[
            f"backend vision.guarded.{name}"
        ]
        assert inner not in plain


def test_a_model_that_nobody_may_call_is_refused_before_the_agent() -> None:
    found = sections(replace(COPIED, access=Access()))["backend vision.detector.shadow"]
    assert found.splitlines()[1].strip().startswith("http-request return status 403")


@pytest.mark.process
@pytest.mark.timeout(20)
def test_haproxy_takes_it_without_a_warning(tmp_path: Path) -> None:
    binary = shutil.which("haproxy")
    assert binary is not None, "HAProxy is needed: hack/install-tools installs it"
    one, authority = identity("gateway"), identity("authority")
    guarded = replace(GUARDED, access=Access(("a" * 64,), authority.pem))
    for name, text in files((PLAIN, COPIED, guarded), Place(str(tmp_path)), one.pem + one.key_pem).items():
        (tmp_path / name).write_text(text)
    ran = subprocess.run(
        [binary, "-c", "-f", str(tmp_path / "haproxy.cfg")], capture_output=True, text=True, timeout=15
    )
    assert ran.returncode == 0, ran.stderr
    assert "WARNING" not in ran.stderr
