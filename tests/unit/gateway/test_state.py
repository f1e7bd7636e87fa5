"""Sets of files are whole or refused, and links lead to one or the other."""

from pathlib import Path

import pytest

from edgemodel.gateway import state

FILES = {"haproxy.cfg": "global\n", "ports.map": "20000 a.b\n", "tokens-1.lst": "ä\n"}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


def test_a_set_is_read_as_it_was_written(folder: str) -> None:
    assert state.read(folder, state.write(folder, FILES)) == FILES


def test_links_lead_to_sets_at_once_and_to_none(folder: str) -> None:
    assert state.led_to(folder, state.NOW) is None
    first, second = state.write(folder, FILES), state.write(folder, FILES)
    assert first != second
    for name in (first, second, None, None):
        state.lead(folder, state.NOW, name)
        assert state.led_to(folder, state.NOW) == name


def test_a_link_that_a_death_left_half_made_is_no_obstacle(folder: str) -> None:
    name = state.write(folder, FILES)
    Path(folder, ".now.new").symlink_to("nowhere")
    state.lead(folder, state.NOW, name)
    assert Path(folder, "now", "haproxy.cfg").read_text(encoding="ascii") == "global\n"


@pytest.mark.parametrize("elsewhere", ["/etc", "../1", "sets/../../etc", "sets/x", "1"])
def test_a_link_to_elsewhere_leads_nowhere(folder: str, elsewhere: str) -> None:
    Path(folder, state.NOW).symlink_to(elsewhere)
    assert state.led_to(folder, state.NOW) is None


@pytest.mark.parametrize("file", [*FILES, "files.sum"])
@pytest.mark.parametrize("damage", ["gone", "empty", "shorter", "longer", "other"])
def test_a_set_that_is_not_whole_is_refused(folder: str, file: str, damage: str) -> None:
    name = state.write(folder, FILES)
    path = Path(folder, "sets", name, file)
    was = path.read_bytes()
    path.unlink()
    if damage != "gone":
        damaged = {"empty": b"", "shorter": was[:-1], "longer": was + b"x", "other": b"\xff" + was[1:]}
        path.write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=name):
        state.read(folder, name)


def test_sums_that_name_other_folders_or_no_configuration_are_refused(folder: str) -> None:
    name = state.write(folder, {"ports.map": ""})
    with pytest.raises(ValueError, match=r"no haproxy\.cfg"):
        state.read(folder, name)
    Path(folder, "sets", name, "files.sum").write_text("0 0 ../../x\nend\n", encoding="ascii")
    with pytest.raises(ValueError, match="makes no sense"):
        state.read(folder, name)


def test_what_nothing_leads_to_is_removed(folder: str) -> None:
    names = [state.write(folder, FILES) for _ in range(3)]
    state.remove_all_but(folder, (names[1], None))
    assert [one.name for one in Path(folder, "sets").iterdir()] == [names[1]]
    assert state.write(folder, FILES) not in names[:2]
