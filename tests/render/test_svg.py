"""The drawing: well-formed, complete, nothing on top of anything else, of bounded size, light and dark."""

import re
from collections.abc import Iterator
from itertools import combinations
from xml.etree import ElementTree

import pytest
from hypothesis import given

from meshes import mesh
from render.examples import document, large_mesh, seeds_mesh
from strategies import documents
from warren.network.document import Document
from warren.render.svg import BOXES, HUES, svg

SVG = "{http://www.w3.org/2000/svg}"


def read(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def words(picture: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in picture.iter(f"{SVG}text")]


def boxes(picture: ElementTree.Element) -> Iterator[tuple[float, float, float, float]]:
    """Left, top, right, bottom of every machine's box."""
    for shape in picture.iter(f"{SVG}rect"):
        if shape.get("class") == "shape":
            x, y, width, height = (float(shape.get(key, "")) for key in ("x", "y", "width", "height"))
            yield x, y, x + width, y + height


@given(documents(keys=False, max_machines=14))
def test_every_machine_and_every_link_is_drawn_once(document: Document) -> None:
    picture = read(svg(document))
    for name in [*document.controllers, *document.peers]:
        assert words(picture).count(name) == 1 + (str(name) == str(document.instance))
    links = [path for path in picture.iter(f"{SVG}path") if "h26" not in path.get("d", "")]  # but for the legend's
    controllers, peers = len(document.controllers), len(document.peers)
    assert len(links) == controllers * (controllers - 1) // 2 + controllers * peers


@given(documents(keys=False, max_machines=14))
def test_boxes_do_not_overlap_and_lie_inside(document: Document) -> None:
    picture = read(svg(document))
    (group,) = picture.findall(f"{SVG}g")
    shift = [float(number) for number in re.findall(r"[-\d.]+", group.get("transform", ""))]
    _, _, width, height = (float(number) for number in picture.get("viewBox", "").split())
    for left, top, right, bottom in boxes(picture):
        assert left + shift[0] >= 0
        assert top + shift[1] >= 0
        assert right + shift[0] <= width
        assert bottom + shift[1] <= height
    for one, other in combinations(boxes(picture), 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (one, other)


@pytest.mark.parametrize(("controllers", "peers"), [(1, 10_000), (4, 10_000), (4, 250), (30, 2_000), (60, 0)])
def test_size_is_bounded(controllers: int, peers: int) -> None:
    text = svg(large_mesh(peers, controllers))
    assert len(text) < 200_000
    drawn = [word for word in words(read(text)) if word.startswith("laptop")]
    counted = sum(int(number.replace(",", "")) for number in re.findall(r">\+([\d,]+) peer", text))
    assert len(drawn) + counted == peers


def test_what_is_not_drawn_is_said() -> None:
    assert "not drawn: every peer also connects to every other controller" in svg(large_mesh(80, 12))
    assert "all controllers connect to each other" in svg(large_mesh(80, 60))
    assert "not drawn" not in svg(large_mesh(80, 4))


def test_it_can_be_read_without_seeing_it() -> None:
    picture = read(svg(seeds_mesh()))
    labels = {child.get("id"): child.text for child in picture}
    assert [labels[ident] for ident in picture.get("aria-labelledby", "").split()] == [
        "Topology of vpn",
        "2 controllers, 3 peers; every peer connects to every controller",
    ]
    assert picture.get("role") == "img"


def test_every_machine_has_a_hint() -> None:
    hints = [element.text for element in read(svg(seeds_mesh())).iter(f"{SVG}title")]
    assert "peer2.vpn: fdeb:f20c:c1:aa00:3b21:3ced:3e:89b3" in hints


def test_day_and_night() -> None:
    text = svg(seeds_mesh())
    assert "@media (prefers-color-scheme: dark)" in text
    style = re.search(r"<style>(.*)</style>", text, re.DOTALL)
    assert style
    assert style[1].count("{") == style[1].count("}")


@pytest.mark.parametrize("hue", range(len(HUES)))
def test_labels_on_controllers_can_be_read(hue: int) -> None:
    """White on the hue by day, near black on it by night: at least 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    day, _, night, _ = HUES[hue]
    assert contrast("#ffffff", day) >= 4.5
    assert contrast("#0b0f19", night) >= 4.5


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_names_are_escaped() -> None:
    """The inventory refuses such names today; a picture must not rest on that."""
    picture = read(svg(document(mesh("<b>&\"'", "peer<1>"))))
    assert {"<b>&\"'", "peer<1>"} <= set(words(picture))


def test_many_nodes_are_dots_with_names() -> None:
    picture = read(svg(large_mesh(BOXES + 1, 2)))
    assert len(list(picture.iter(f"{SVG}circle"))) == BOXES + 1


def test_the_same_mesh_is_the_same_picture() -> None:
    assert svg(seeds_mesh()) == svg(seeds_mesh())
    assert "-0.0" not in svg(large_mesh(64, 4))
