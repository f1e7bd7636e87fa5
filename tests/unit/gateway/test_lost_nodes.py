"""What HAProxy says of its pods: which of them nothing answers for, and how many requests wait there."""

import pytest

from edgemodel.gateway.lost_nodes import silent_servers

HEAD = "# pxname,svname,qcur,scur,status,lastchg,check_status,check_code,last_chk\n"


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ("", {}),
        ("a.b.active,one,0,3,UP,7,L4OK,,\n", {}),
        ("a.b.active,one,0,3,DOWN,2,L4TOUT,,\n", {"a.b.active/one": 3}),
        ("a.b.active,one,0,3,DOWN,2,* L4TOUT,,\n", {"a.b.active/one": 3}),
        ("a.b.active,one,0,,DOWN 1/2,2,L4CON,,No route to host\n", {"a.b.active/one": 0}),
        ("a.b.active,one,0,3,DOWN,2,L7STS,500,\n", {}),
        ("a.b.active,one,0,3,MAINT,2,L4TOUT,,\na.b.active,two,0,1,UP 1/2,1,L4TOUT,,\n", {}),
        (
            "a.b.active,one,0,3,DOWN,2,L4TOUT,,\na.b.candidate,spare-one,0,1,DOWN,2,L4TOUT,,\n",
            {"a.b.active/one": 3, "a.b.candidate/spare-one": 1},
        ),
    ],
)
def test_pods_that_no_check_reaches(rows: str, found: dict[str, int]) -> None:
    assert silent_servers(HEAD + rows) == found


def test_no_answer_is_no_pod() -> None:
    assert silent_servers("") == {}
