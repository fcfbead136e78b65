"""Connections go on when controllers come and go: real streams, real faults. How fast is for bench/failover.py."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab.labs import DEMO, WARREN, Computer, computer
from lab.streams import SOON_S, agent, await_carrier, stream
from namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab]

TWO = DEMO.replace('roles.peer.machines.laptop2.settings.controller = "server2"\n', "")


@pytest.fixture(scope="module")
def two() -> Iterator[Computer]:
    """Two controllers; all names point into server1's subnet."""
    with computer() as made:
        made.up(TWO, "--name", "demo")
        yield made


def test_a_stream_survives_a_controller_that_dies_and_its_return(two: Computer) -> None:
    with stream(two, "laptop1", "laptop3") as going:
        two.warren("fault", "kill", "server1")
        await_carrier(two, "laptop1", "server2")
        await_carrier(two, "laptop3", "server2")
        going.check()
        assert "server2's subnet" not in two.on("laptop1", "warren", "status")
        assert "server1's subnet is carried by server2" in two.on("laptop1", "warren", "status")
        kinds = [each["kind"] for each in agent(two, "laptop1")["events"]]
        assert {"verdict", "move"} <= set(kinds)
        two.warren("fault", "heal", "server1")
        await_carrier(two, "laptop1", "server1")
        await_carrier(two, "laptop3", "server1")
        going.check()
    assert two.failing() == set()


def test_a_controller_that_answers_and_forwards_no_more_is_left(two: Computer) -> None:
    with stream(two, "laptop1", "laptop3") as going:
        two.on(
            "server1", "nft", "table inet broken { chain f { type filter hook forward priority -5; policy drop; }; }"
        )
        await_carrier(two, "laptop1", "server2")
        assert agent(two, "laptop1")["health"]["server1"]["verdict"] == "does not forward"
        two.on("laptop1", "ping", "-6", "-c", "1", "-W", "5", "server1.vpn")
        going.check()
        two.on("server1", "nft", "delete table inet broken")
        await_carrier(two, "laptop1", "server1")
        going.check()


def test_what_one_peer_alone_lost_costs_its_streams_nothing(two: Computer) -> None:
    """laptop1 and server1 do not reach each other, all others do; both ends of the stream use server2 between them."""
    with stream(two, "laptop1", "laptop3") as going:
        hosts = two.on("laptop1", "cat", "/etc/hosts")
        addresses = [line.split()[0] for line in hosts.splitlines() if line.endswith(" vpn1.example.com")]
        rules = "".join(
            f"{'ip6' if ':' in each else 'ip'} saddr {each} drop; {'ip6' if ':' in each else 'ip'} daddr {each} drop; "
            for each in addresses
        )
        hooks = "".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; {rules} }}; " for hook in ("input", "output")
        )
        two.on("laptop1", "nft", f"table inet apart {{ {hooks} }}")
        await_carrier(two, "laptop1", "server2")
        wait_until(lambda: "laptop1" in agent(two, "laptop3")["lost_by_others"], SOON_S, "the word of it on laptop3")
        assert agent(two, "laptop3")["carriers"]["server1"] == "server1"
        going.check()
        # Names follow: each other's, into the subnet that both can use.
        wait_until(lambda: _names(two, "laptop3", "laptop1") == _names(two, "laptop1", "laptop1"), SOON_S, "the name")
        two.on("laptop3", "ping", "-6", "-c", "1", "-W", "5", "laptop1.vpn")
        two.on("laptop1", "nft", "delete table inet apart")
        await_carrier(two, "laptop1", "server1")
        wait_until(lambda: not agent(two, "laptop3")["lost_by_others"], SOON_S, "the end of it on laptop3")
        going.check()


def _names(on: Computer, machine: str, name: str) -> str:
    return on.on(machine, "getent", "ahostsv6", f"{name}.vpn").split()[0]


def test_a_drained_controller_is_left_and_used_again_and_nothing_is_lost(two: Computer) -> None:
    with stream(two, "laptop1", "laptop3") as going:
        answer = json.loads(two.on("server1", "warren", "machine", "drain", "vpn"))
        assert answer == {"draining": True, "left": True}
        await_carrier(two, "laptop1", "server2")
        two.warren("fault", "kill", "server1")  # what it was drained for
        two.warren("fault", "heal", "server1")
        wait_until(lambda: agent(two, "server1").get("draining") is True, SOON_S, "the drain, over the reboot")
        going.check()
        assert agent(two, "laptop1")["carriers"]["server1"] == "server2"
        assert json.loads(two.on("server1", "warren", "machine", "undrain", "vpn"))["draining"] is False
        await_carrier(two, "laptop1", "server1")
        going.check()


def test_an_agent_that_starts_in_the_middle_leaves_things_where_they_were_moved(two: Computer) -> None:
    with stream(two, "laptop1", "laptop3") as going:
        two.warren("fault", "kill", "server1")
        await_carrier(two, "laptop1", "server2")
        two.shell("laptop1", "kill -9 $(pgrep -o -f 'warren.* agent'); rm -f /run/warren/agent.sock")
        two.shell("laptop1", "setsid warren agent > /run/agent.log 2>&1 < /dev/null &")
        wait_until(lambda: agent(two, "laptop1").get("carriers"), SOON_S, "the agent")
        assert agent(two, "laptop1")["carriers"]["server1"] == "server2"
        going.check()
        two.warren("fault", "heal", "server1")
        await_carrier(two, "laptop1", "server1")
        going.check()


def test_the_only_controller_is_not_drained() -> None:
    with computer() as made:
        made.up(TWO.replace("server2 = {}\n", "").replace(_SECOND, ""), "--name", "demo")
        said = made.run(*WARREN, "lab", "exec", "server1", "--name", "demo", "--", "warren", "machine", "drain", "vpn")
        assert (said.returncode, "it is the only controller" in said.stderr) == (2, True)
        with stream(made, "laptop1", "laptop3") as going:
            made.warren("fault", "kill", "server1")
            made.warren("fault", "heal", "server1")
            going.check()


_SECOND = 'roles.controller.machines.server2.settings.endpoint = "vpn2.example.com"\n'
