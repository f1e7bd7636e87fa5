"""What the connections of a process share, and its part of that where several processes serve."""

import pytest

from inference_server.errors import NotReady
from inference_server.http.peers import BODIES_IN_MEMORY, MAX_CONNECTIONS, Peers

MAX_BODY = 1024


def test_of_several_processes_each_holds_its_part_of_bodies_and_connections():
    peers = Peers(None, MAX_BODY)
    peers.divide(2)
    assert (peers.bodies_in_memory, peers.most_connections) == (BODIES_IN_MEMORY // 2, MAX_CONNECTIONS // 2)
    peers.charge(MAX_BODY * BODIES_IN_MEMORY // 2)
    with pytest.raises(NotReady):
        peers.charge(1)


def test_the_largest_body_is_served_by_whichever_process_it_comes_to():
    peers = Peers(None, MAX_BODY)
    peers.divide(64)
    peers.charge(MAX_BODY)
