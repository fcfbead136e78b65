"""`show`: the shape that programs rely on, and addresses as Python writes them."""

import json
from ipaddress import ip_address

from hypothesis import given

from meshes import inventory, mesh
from strategies import documents
from warren.names import InstanceName
from warren.network.addresses import peer_address
from warren.network.document import Document
from warren.network.resolve import resolve
from warren.plan.plan import host_lines
from warren.render.columns import columns
from warren.render.show import shown_table, shown_tree


def vpn(controllers: str, peers: str = "") -> Document:
    return resolve(inventory(mesh(controllers, peers)), {})[InstanceName("vpn")]


def test_the_tree_needs_no_keys_and_has_the_documented_shape() -> None:
    assert shown_tree([vpn("server1 server2", "laptop4548")]) == {
        "instances": {
            "vpn": {
                "base": "fdeb:f20c::/40",
                "domain": "vpn",
                "machines": {
                    "server1": {
                        "role": "controller",
                        "subnet": "fdeb:f20c:7f:4000::/56",
                        "address": "fdeb:f20c:7f:4000::1",
                        "name": "server1.vpn",
                        "endpoint": "server1.example.com:51820",
                    },
                    "server2": {
                        "role": "controller",
                        "subnet": "fdeb:f20c:c6:7e00::/56",
                        "address": "fdeb:f20c:c6:7e00::1",
                        "name": "server2.vpn",
                        "endpoint": "server2.example.com:51820",
                    },
                    "laptop4548": {
                        "role": "peer",
                        "suffix": "0000:b42e:7f38:1052",
                        "controller": "server1",
                        "addresses": {
                            "server1": "fdeb:f20c:7f:4000:0:b42e:7f38:1052",
                            "server2": "fdeb:f20c:c6:7e00:0:b42e:7f38:1052",
                        },
                        "name": "laptop4548.vpn",
                    },
                },
            }
        }
    }


@given(documents(keys=False))
def test_addresses_are_written_as_python_writes_them(document: Document) -> None:
    tree = json.loads(json.dumps(shown_tree([document])))
    machines = tree["instances"][document.instance]["machines"]
    assert set(machines) == {*document.controllers, *document.peers}
    for name, peer in document.peers.items():
        assert machines[name]["addresses"] == {
            controller: str(peer_address(entry.subnet, peer.suffix))
            for controller, entry in document.controllers.items()
        }


@given(documents(keys=False))
def test_the_table_holds_every_address_whole(document: Document) -> None:
    words = shown_table(document).split()
    for controller in document.controllers.values():
        assert {str(controller.address), str(controller.subnet), str(controller.endpoint)} <= set(words)
        for peer in document.peers.values():
            assert str(peer_address(controller.subnet, peer.suffix)) in words


@given(documents(keys=False))
def test_a_name_stands_beside_the_address_that_it_points_to(document: Document) -> None:
    rows = [line.split() for line in shown_table(document).splitlines()]
    for line in host_lines(document):
        (row,) = [row for row in rows if line.name in row]
        assert ip_address(row[2]) == line.address


def test_the_table_of_a_mesh() -> None:
    assert shown_table(vpn("server1 server2", "laptop1")) == (
        "vpn   fdeb:f20c::/40   2 controllers, 1 peer\n"
        "\n"
        "  CONTROLLER   NAME          ADDRESS                SUBNET                   ENDPOINT\n"
        "  server1      server1.vpn   fdeb:f20c:7f:4000::1   fdeb:f20c:7f:4000::/56   server1.example.com:51820\n"
        "  server2      server2.vpn   fdeb:f20c:c6:7e00::1   fdeb:f20c:c6:7e00::/56   server2.example.com:51820\n"
        "\n"
        "  PEER      NAME          ADDRESS                               THROUGH\n"
        "  laptop1   laptop1.vpn   fdeb:f20c:7f:4000:bcd6:8f7f:3d6c:97   server1\n"
        "  laptop1                 fdeb:f20c:c6:7e00:bcd6:8f7f:3d6c:97   server2\n"
    )


def test_columns_end_without_blanks_and_take_rows_of_any_length() -> None:
    assert columns([("a", "bb", ""), ("aaa",), ()]) == "a     bb\naaa\n\n"
    assert columns([]) == ""
