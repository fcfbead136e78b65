"""A mesh's topology as a drawing: self-contained SVG, light or dark as its reader's screen is."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from math import cos, degrees, pi, sin

from warren.network.document import ControllerEntry, Document, PeerEntry
from warren.render.picture import Group, Picture, more, picture
from warren.render.rings import Place, Rings, Size, rings
from warren.render.show import counted, hexadecimal_groups

PEERS, LINKS = 200, 900
BOXES = 16  # so many nodes are boxes with addresses; more are dots with names
MARGIN = 36.0
HEAD, FOOT = 48.0, 28.0
LEGEND_WIDTH = 500.0
BEND = 0.85  # how far out, as part of the outer ring, a curve to another's controller is drawn

# Stroke and fill by day, stroke and fill by night; one hue for each controller and the peers around it.
HUES = (
    ("#4f46e5", "#eef2ff", "#818cf8", "#1e1b4b"),
    ("#0f766e", "#f0fdfa", "#2dd4bf", "#042f2e"),
    ("#be185d", "#fdf2f8", "#f472b6", "#500724"),
    ("#b45309", "#fffbeb", "#fbbf24", "#451a03"),
    ("#0369a1", "#f0f9ff", "#38bdf8", "#082f49"),
    ("#4d7c0f", "#f7fee7", "#a3e635", "#1a2e05"),
    ("#7e22ce", "#faf5ff", "#c084fc", "#3b0764"),
    ("#b91c1c", "#fef2f2", "#f87171", "#450a0a"),
)

STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 13px; fill: #1f2937 }
.title { font-size: 20px; font-weight: 600 }
.name { font-weight: 600 }
.small { font-size: 11px; fill: #6b7280 }
.code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 10.5px }
.controller text, .controller .small { fill: #ffffff }
.crowd .shape { stroke-dasharray: 4 3 }
.crowd text { font-weight: 600 }
.page { fill: #ffffff; stroke: #e5e7eb }
.link { fill: none; stroke: #9ca3af; stroke-width: 1; opacity: .7 }
.own { opacity: .9; stroke-width: 2 }
.trunk { stroke: #6b7280; stroke-width: 3; opacity: 1 }
"""
NIGHT = """
text { fill: #e5e7eb }
.small { fill: #9ca3af }
.controller text, .controller .small { fill: #0b0f19 }
.page { fill: #111827; stroke: #374151 }
.link { stroke: #6b7280 }
.trunk { stroke: #9ca3af }
"""


def svg(document: Document) -> str:
    """The picture, of bounded size: what is not drawn one by one is counted."""
    return _Drawing(picture(document, PEERS, LINKS)).text()


class _Drawing:
    """One picture being laid out: sizes first, then links, then what lies on them."""

    def __init__(self, shown: Picture) -> None:
        self.shown = shown
        self.document = shown.document
        self.boxes = shown.nodes <= BOXES
        self.card = _card_size(shown)
        self.node = _box_size(shown) if self.boxes else Size(17, 17)
        self.rings: Rings = rings(
            [group.nodes for group in shown.groups],
            self.card,
            Size(self.node.width + (24 if self.boxes else 0), self.node.height),
            flatness=0.6 if self.boxes else 1.0,
        )

    def text(self) -> str:
        left, top, right, bottom = self._bounds()
        width, height = right - left + 2 * MARGIN, bottom - top + 2 * MARGIN + HEAD + FOOT
        title = f"Topology of {self.document.instance}"
        description = f"{counted(self.document)}; every peer connects to every controller"
        lines = [
            _opening(width, height),
            f'<title id="topology-title">{escape(title)}</title>',
            f'<desc id="topology-description">{escape(description)}</desc>',
            f"<style>{self._style()}</style>",
            f'<rect class="page" x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="14"/>',
            f'<text class="title" x="28" y="42">{escape(self.document.instance)}</text>',
            f'<text class="small" x="28" y="62">{self.document.base} · {escape(counted(self.document))}</text>',
            *self._legend(28, height - 22),
            f'<g transform="translate({_xy(MARGIN - left, MARGIN - top + HEAD)})">',
            *self._links(),
            *self._nodes(),
            "</g>",
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def _bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what is drawn; never narrower than the legend."""
        rooms = [(place, self.card) for place in self.rings.controllers]
        reach = 2 * self._label_width()
        node = self.node if self.boxes else Size(reach, reach)
        rooms += [(place, node) for places in self.rings.nodes for place in places]
        left = min(place.x - room.width / 2 for place, room in rooms)
        right = max(place.x + room.width / 2 for place, room in rooms)
        spare = max(0.0, LEGEND_WIDTH - (right - left)) / 2
        return (
            left - spare,
            min(place.y - room.height / 2 for place, room in rooms),
            right + spare,
            max(place.y + room.height / 2 for place, room in rooms),
        )

    def _style(self) -> str:
        day, night = [], []
        for i, (stroke, fill, night_stroke, night_fill) in enumerate(HUES[: len(self.shown.groups)]):
            day.append(_hue(i, stroke, fill))
            night.append(_hue(i, night_stroke, night_fill))
        return f"{STYLE}{''.join(day)}@media (prefers-color-scheme: dark) {{{NIGHT}{''.join(night)}}}\n"

    def _legend(self, x: float, y: float) -> Iterator[str]:
        samples = [("link own h0", "to the designated controller")]
        if len(self.shown.groups) > 1:
            if self.shown.every_link:
                samples.append(("link", "to the others"))
            if self.shown.controller_links:
                samples.append(("link trunk", "between controllers"))
        for style, words in samples if self.shown.nodes else []:
            yield f'<path class="{style}" d="M{x:.0f} {y - 4:.0f}h26"/>'
            yield f'<text class="small" x="{x + 34:.0f}" y="{y:.0f}">{words}</text>'
            x += 34 + 6.2 * len(words) + 22
        if self.shown.left_out:
            yield f'<text class="small" x="{x:.0f}" y="{y:.0f}">not drawn: {self.shown.left_out}</text>'

    def _links(self) -> Iterator[str]:
        places = dict(zip(self.document.controllers, self.rings.controllers, strict=True))
        for one, other in self.shown.controller_links:
            yield _path("link trunk", places[one], places[other])
        for own, nodes in enumerate(self.rings.nodes):
            for node in nodes:
                for i, controller in enumerate(self.rings.controllers):
                    if i == own:
                        yield _path(f"link own h{own % len(HUES)}", node, controller)
                    elif self.shown.every_link:
                        yield self._detour(node, controller)

    def _detour(self, node: Place, controller: Place) -> str:
        """A curve around the middle, so that it does not pass behind the node's own controller."""
        turn = (controller.angle - node.angle + pi) % (2 * pi) - pi
        angle = node.angle + turn / 2
        ring = self.rings.outer
        x, y = BEND * ring.horizontal * cos(angle), BEND * ring.vertical * sin(angle)
        d = f"M{_xy(node.x, node.y)}Q{_xy(x, y)} {_xy(controller.x, controller.y)}"
        return f'<path class="link" d="{d}"/>'

    def _nodes(self) -> Iterator[str]:
        for i, (group, place, nodes) in enumerate(
            zip(self.shown.groups, self.rings.controllers, self.rings.nodes, strict=True)
        ):
            hue = f"h{i % len(HUES)}"
            for peer, where in zip(group.peers, nodes, strict=False):
                yield self._peer(peer, where, hue)
            if group.hidden:
                yield self._hidden(group, nodes[-1], hue)
            yield self._controller(group.controller, place, hue)

    def _controller(self, controller: ControllerEntry, place: Place, hue: str) -> str:
        lines = [("name", controller.name), ("small", str(controller.endpoint)), ("small code", str(controller.subnet))]
        return _box(f"controller {hue}", place, self.card, lines, f"{controller.name}.{self.document.domain}")

    def _peer(self, peer: PeerEntry, place: Place, hue: str) -> str:
        hint = f"{peer.name}.{self.document.domain}: {self.document.name_address(peer)}"
        if not self.boxes:
            return _dot(f"peer {hue}", place, peer.name, hint)
        lines = [("name", peer.name), ("small code", f"…{':'.join(hexadecimal_groups(peer.suffix))}")]
        return _box(f"peer {hue}", place, self.node, lines, hint)

    def _hidden(self, group: Group, place: Place, hue: str) -> str:
        style, label, hint = f"peer crowd {hue}", more(group), f"of {group.controller.name}"
        if not self.boxes:
            return _dot(style, place, label, hint)
        return _box(style, place, self.node, [("name", label), ("small", hint)], hint)

    def _label_width(self) -> float:
        labels = [len(peer.name) for group in self.shown.groups for peer in group.peers]
        labels += [len(more(group)) for group in self.shown.groups if group.hidden]
        return 16 + 7.4 * max(labels, default=0)


def _opening(width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
        f' height="{height:.0f}" role="img" aria-labelledby="topology-title topology-description">'
    )


def _hue(i: int, stroke: str, fill: str) -> str:
    return (
        f".h{i} .shape {{ stroke: {stroke}; fill: {fill} }}\n"
        f".controller.h{i} .shape {{ fill: {stroke} }}\n"
        f".link.h{i} {{ stroke: {stroke} }}\n"
    )


def _card_size(shown: Picture) -> Size:
    widest = max(
        max(8.2 * len(g.controller.name), 6.3 * max(len(str(g.controller.endpoint)), len(str(g.controller.subnet))))
        for g in shown.groups
    )
    return Size(max(150.0, widest + 28), 68)


def _box_size(shown: Picture) -> Size:
    widest = max((8.2 * len(peer.name) for group in shown.groups for peer in group.peers), default=0)
    return Size(max(148.0, widest + 24), 46)


def _box(style: str, place: Place, size: Size, lines: list[tuple[str, str]], hint: str) -> str:
    first = place.y + 4.5 - 17 * (len(lines) - 1) / 2
    texts = "".join(
        f'<text class="{kind}" x="{place.x:.1f}" y="{first + 17 * i:.1f}" text-anchor="middle">{escape(text)}</text>'
        for i, (kind, text) in enumerate(lines)
    )
    return (
        f'<g class="{style}"><title>{escape(hint)}</title><rect class="shape" x="{place.x - size.width / 2:.1f}"'
        f' y="{place.y - size.height / 2:.1f}" width="{size.width:.1f}" height="{size.height:.1f}" rx="10"'
        f' stroke-width="1.5"/>{texts}</g>'
    )


def _dot(style: str, place: Place, label: str, hint: str) -> str:
    """A dot whose label points outwards, and never stands on its head."""
    turn, offset, anchor = degrees(place.angle) % 360, 11.0, "start"
    if 90 < turn < 270:
        turn, offset, anchor = turn - 180, -offset, "end"
    where = f"translate({_xy(place.x, place.y)}) rotate({turn:.1f})"
    return (
        f'<g class="{style}" transform="{where}"><title>{escape(hint)}</title>'
        f'<circle class="shape" r="5" stroke-width="1.5"/>'
        f'<text x="{offset:.0f}" y="4" text-anchor="{anchor}">{escape(label)}</text></g>'
    )


def _path(style: str, one: Place, other: Place) -> str:
    return f'<path class="{style}" d="M{_xy(one.x, one.y)}L{_xy(other.x, other.y)}"/>'


def _xy(x: float, y: float) -> str:
    # Rounded before it is written: -0.0 and 0.0 differ between machines' sin and cos.
    return f"{round(x, 1) + 0.0:.1f} {round(y, 1) + 0.0:.1f}"
