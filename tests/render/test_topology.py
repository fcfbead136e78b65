"""Topology as text, mermaid and dot: the picture of the service description, valid, and of bounded size."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given

from meshes import mesh
from render.dot_grammar import parse
from render.examples import document, large_mesh, seeds_mesh
from strategies import documents
from warren.names import MachineName
from warren.network.document import Document
from warren.render import topology
from warren.wireguard.endpoint import Endpoint

SEED = """
graph TB
subgraph Controllers
C1[controller1<br/>endpoint: vpn1.example.com<br/>fd51:19c1:3b:f700::/56]
C2[controller2<br/>endpoint: vpn2.example.com<br/>fd51:19c1:c1:aa00::/56]
end
subgraph Peers
P1[peer1<br/>designated: controller1]
P2[peer2<br/>designated: controller2]
P3[peer3<br/>designated: controller1]
end
%% Controllers connect to each other
C1 <--> C2
%% All peers connect to all controllers
P1 <--> C1
P1 <--> C2
P2 <--> C1
P2 <--> C2
P3 <--> C1
P3 <--> C2
%% Peer-to-peer traffic flows through controllers
P1 -.->|via controllers| P3
P1 -.->|via controllers| P2
P2 -.->|via controllers| P3
classDef controller fill:#f9f,stroke:#333,stroke-width:4px
classDef peer fill:#bbf,stroke:#333,stroke-width:2px
class C1,C2 controller
class P1,P2,P3 peer
"""


def structure(mermaid: str) -> dict[str, object]:
    """What of a mermaid picture does not depend on texts: nodes by name, lines, classes and their styles."""
    names = dict(re.findall(r'^(\w+)\["?([^<"\]]+)', mermaid, re.MULTILINE))
    return {
        "subgraphs": re.findall(r"^subgraph (\w+)$", mermaid, re.MULTILINE),
        "details": {
            names[ident]: re.findall(r"designated: \w+|endpoint: |/56", text)
            for ident, text in re.findall(r"^(\w+)\[(.*)\]$", mermaid, re.MULTILINE)
        },
        "lines": {frozenset((names[a], names[b])) for a, b in re.findall(r"^(\w+) <--> (\w+)$", mermaid, re.MULTILINE)},
        "dashed": {
            frozenset((names[a], names[b]))
            for a, b in re.findall(r"^(\w+) -\.->\|via controllers\| (\w+)$", mermaid, re.MULTILINE)
        },
        "classes": {
            name: {names[ident] for ident in members.split(",")}
            for members, name in re.findall(r"^class (\S+) (\w+)$", mermaid, re.MULTILINE)
        },
        "styles": {
            name: set(style.split(",")) - {"color:#000"}  # ours is readable on dark pages too
            for name, style in re.findall(r"^classDef (\w+) (\S+)$", mermaid, re.MULTILINE)
        },
    }


def test_mermaid_is_the_picture_of_the_service_description() -> None:
    assert structure(topology.mermaid(seeds_mesh())) == structure(SEED)


def test_mermaid_quotes_what_its_grammar_would_read() -> None:
    vpn = mesh("server1")
    server = replace(vpn.controllers[MachineName("server1")], endpoint=Endpoint("2001:db8::1", 51820))
    text = topology.mermaid(document(replace(vpn, controllers={server.name: server})))
    assert 'C1["server1<br/>endpoint: [2001:db8::1]:51820<br/>' in text


def test_large_meshes_have_no_dashed_lines_and_stay_within_mermaids_limits() -> None:
    text = topology.mermaid(large_mesh(10_000))
    assert "via controllers" not in text
    assert text.count(" <--> ") <= 500, "mermaid draws nothing above 500 lines"
    assert len(text) <= 50_000, "mermaid draws nothing above 50,000 characters"
    assert text.count('["+2,475 peers<br/>') == 4


@pytest.mark.parametrize("render", [topology.text, topology.mermaid, topology.dot])
def test_size_is_bounded_and_nobody_is_forgotten(render: Callable[[Document], str]) -> None:
    for controllers in (1, 4, 40):
        text = render(large_mesh(10_000, controllers))
        assert len(text) < 100_000
        drawn = len(set(re.findall(r"laptop\d+", text)))
        counted = sum(int(number.replace(",", "")) for number in re.findall(r"\+([\d,]+) peer", text))
        assert drawn + counted == 10_000


@given(documents(keys=False))
def test_dot_has_every_machine_and_every_link(document: Document) -> None:
    graph = parse(topology.dot(document))
    assert graph.nodes == {*document.controllers, *document.peers}
    expected = {frozenset(pair) for pair in combinations(document.controllers, 2)}
    expected |= {frozenset((peer, controller)) for peer in document.peers for controller in document.controllers}
    assert graph.edges == expected


def test_dot_of_a_large_mesh_is_valid() -> None:
    parse(topology.dot(large_mesh(10_000)))
    parse(topology.dot(large_mesh(300, 40)))


@pytest.mark.skipif(
    not shutil.which("dot"), reason="Graphviz is not installed: its grammar is checked by our own parser"
)
def test_graphviz_accepts_the_dot_file() -> None:
    for each in (seeds_mesh(), large_mesh(10_000)):
        subprocess.run(["dot", "-Tsvg"], input=topology.dot(each), text=True, capture_output=True, check=True)


def test_the_tree() -> None:
    assert topology.text(seeds_mesh()) == (
        "vpn   fdeb:f20c::/40   2 controllers, 3 peers, every peer connects to every controller\n"
        "├── controller1   fdeb:f20c:3b:f700::1   controller1.example.com:51820\n"
        "│   ├── peer1   fdeb:f20c:3b:f700:6987:50a0:9b93:4337\n"
        "│   └── peer3   fdeb:f20c:3b:f700:e42b:bf85:33f4:f0b1\n"
        "└── controller2   fdeb:f20c:c1:aa00::1   controller2.example.com:51820\n"
        "    └── peer2   fdeb:f20c:c1:aa00:3b21:3ced:3e:89b3\n"
    )
