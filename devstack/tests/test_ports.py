from __future__ import annotations

import os
import socket
from pathlib import Path

from devstack.layout import HIGHEST_OFFSET, PORTS, Layout
from devstack.options import REPLICATED, Options
from devstack.ports import Port, next_free_offset, of_stack
from mesh.topology import PORTS_EACH

from conftest import free_port_offset

LARGEST = Options(replicas=REPLICATED)


def test_all_ports_of_the_largest_stack_lie_within_one_hundred_and_none_is_given_twice() -> None:
    found = list(of_stack(Layout(Path()), LARGEST))
    numbers = {port.number for port in found}
    # HTTPS and HTTP/3 are one number.
    assert len(numbers) == len(found) - 1
    assert max(numbers) - min(numbers) < PORTS_EACH
    assert numbers >= set(PORTS.values())


def test_the_highest_offset_leaves_every_port_valid() -> None:
    assert max(port.number for port in of_stack(Layout(Path(), HIGHEST_OFFSET), LARGEST)) <= 65535


def test_a_port_is_taken_by_whoever_listens_on_it_over_tcp_or_udp() -> None:
    for kind, type_ in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)):
        with socket.socket(type=type_) as taken:
            taken.bind(("127.0.0.1", 0))
            if kind == "tcp":
                taken.listen()
            number = taken.getsockname()[1]
            assert not Port("x", number, kind).is_free()
            assert Port("x", number, kind).owner().startswith(f" by process {os.getpid()} (")
        assert Port("x", number, kind).is_free()


def test_the_next_free_offset_is_next_door_unless_any_of_its_ports_is_taken(tmp_path: Path) -> None:
    here = Layout(tmp_path, free_port_offset() - PORTS_EACH)
    free = here.port_offset + PORTS_EACH
    assert next_free_offset(here, Options()) == free
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", Layout(tmp_path, free).port("public_tls")))
        found = next_free_offset(here, Options())
        assert found is not None
        assert found > free
        assert found % PORTS_EACH == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", Layout(tmp_path, free).port("order-2_ops")))
        taken.listen()
        assert next_free_offset(here, Options()) == free
        assert next_free_offset(here, Options(replicas={"order": 2})) != free
