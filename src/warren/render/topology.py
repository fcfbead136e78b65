"""A mesh's topology as text, mermaid and dot. `render.svg` draws it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from warren.names import MachineName
from warren.network.document import ControllerEntry, Document
from warren.render.picture import Group, Picture, more, picture
from warren.render.show import counted

TEXT_PEERS = 400
DOT_PEERS, DOT_LINKS = 200, 1000
MERMAID_PEERS, MERMAID_LINKS = 100, 450  # mermaid refuses above 500 edges (its maxEdges)
VIA_CONTROLLERS_PEERS = 6  # above, the dashed lines between all peers hide the rest


def text(document: Document) -> str:
    """A tree: each controller with the peers whose names point into its subnet."""
    shown = picture(document, TEXT_PEERS, links=0)
    width = max((len(peer.name) for group in shown.groups for peer in group.peers), default=0)
    everybody = ", every peer connects to every controller" if len(shown.groups) > 1 and document.peers else ""
    lines = [f"{document.instance}   {document.base}   {counted(document)}{everybody}"]
    for group in shown.groups:
        is_last = group is shown.groups[-1]
        controller = group.controller
        lines.append(f"{_branch(is_last)}{controller.name}   {controller.address}   {controller.endpoint}")
        leaves = [f"{peer.name:<{width}}   {document.name_address(peer)}" for peer in group.peers]
        if group.hidden:
            leaves.append(more(group))
        stem = "    " if is_last else "│   "
        lines.extend(f"{stem}{_branch(leaf is leaves[-1])}{leaf}" for leaf in leaves)
    return "\n".join(lines) + "\n"


def _branch(is_last: bool) -> str:
    return "└── " if is_last else "├── "


def mermaid(document: Document) -> str:
    """The picture of the service description, in mermaid."""
    shown = picture(document, MERMAID_PEERS, MERMAID_LINKS)
    controllers = {group.controller.name: f"C{i}" for i, group in enumerate(shown.groups, 1)}
    peers = _mermaid_peers(shown)
    lines = ["graph TB", "subgraph Controllers"]
    lines += [
        f'{controllers[group.controller.name]}["{"<br/>".join(_controller_label(group.controller))}"]'
        for group in shown.groups
    ]
    lines.append("end")
    if peers:
        lines.append("subgraph Peers")
        lines += [f'{ident}["{label}<br/>designated: {controller}"]' for ident, label, controller in peers]
        lines.append("end")
    if shown.left_out:
        lines.append(f"%% Not drawn: {shown.left_out}")
    if shown.controller_links:
        lines.append("%% Controllers connect to each other")
        lines += [f"{controllers[one]} <--> {controllers[other]}" for one, other in shown.controller_links]
    if peers:
        lines.append(f"%% {'All peers connect to all controllers' if shown.every_link else 'Designated controllers'}")
        lines += [
            f"{ident} <--> {controllers[controller]}"
            for ident, _, designated in peers
            for controller in _linked(shown, designated)
        ]
    if 2 <= len(document.peers) <= VIA_CONTROLLERS_PEERS:
        lines.append("%% Peer-to-peer traffic flows through controllers")
        pairs = combinations((ident for ident, _, _ in peers), 2)
        lines += [f"{one} -.->|via controllers| {other}" for one, other in pairs]
    lines.append("classDef controller fill:#f9f,stroke:#333,stroke-width:4px,color:#000")
    lines.append("classDef peer fill:#bbf,stroke:#333,stroke-width:2px,color:#000")
    lines.append(f"class {','.join(controllers.values())} controller")
    if peers:
        lines.append(f"class {','.join(ident for ident, _, _ in peers)} peer")
    return "\n".join(lines) + "\n"


def _controller_label(controller: ControllerEntry) -> tuple[str, str, str]:
    return controller.name, f"endpoint: {controller.endpoint}", str(controller.subnet)


def _mermaid_peers(shown: Picture) -> list[tuple[str, str, MachineName]]:
    """Identifier, label and designated controller of each peer, in order of their names; counted ones come last."""
    drawn = {peer.name: group.controller.name for group in shown.groups for peer in group.peers}
    nodes = [(name, drawn[name]) for name in sorted(drawn)]
    nodes += [(MachineName(more(group)), group.controller.name) for group in shown.groups if group.hidden]
    return [(f"P{i}", label, controller) for i, (label, controller) in enumerate(nodes, 1)]


def _linked(shown: Picture, designated: MachineName) -> Iterator[MachineName]:
    for group in shown.groups:
        if shown.every_link or group.controller.name == designated:
            yield group.controller.name


def dot(document: Document) -> str:
    """The mesh for Graphviz: bold lines lead to designated controllers."""
    shown = picture(document, DOT_PEERS, DOT_LINKS)
    lines = [
        f"graph {_quoted(document.instance)} {{",
        "  layout=neato; overlap=false; splines=line;",
        f"  label={_quoted(f'{document.instance}   {document.base}   {counted(document)}')}; labelloc=t;",
        '  fontname="Helvetica"; edge [color="#999999", len=3];',
        '  node [fontname="Helvetica", style="filled,rounded", shape=box];',
    ]
    if shown.left_out:
        lines.append(f"  // Not drawn: {shown.left_out}")
    for group in shown.groups:
        label = _quoted(*_controller_label(group.controller))
        lines.append(f'  {_quoted(group.controller.name)} [label={label}, fillcolor="#ffddff", penwidth=2];')
    lines += [f"  {_quoted(one)} -- {_quoted(other)} [penwidth=2];" for one, other in shown.controller_links]
    for group in shown.groups:
        lines += _dot_peers(shown, group)
    return "\n".join([*lines, "}"]) + "\n"


def _dot_peers(shown: Picture, group: Group) -> Iterator[str]:
    document, controller = shown.document, group.controller.name
    nodes = [(peer.name, _quoted(peer.name, str(document.name_address(peer)))) for peer in group.peers]
    if group.hidden:
        # No machine is called so: a space is no part of a host name.
        nodes.append((MachineName(f"more of {controller}"), _quoted(more(group))))
    for name, label in nodes:
        yield f'  {_quoted(name)} [label={label}, fillcolor="#ddddff"];'
        for other in _linked(shown, controller):
            style = " [color=black, penwidth=1.5]" if other == controller else ""
            yield f"  {_quoted(name)} -- {_quoted(other)}{style};"


def _quoted(*lines: str) -> str:
    """A quoted string of the dot language, each line centered."""
    text = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return f'"{text}"'
