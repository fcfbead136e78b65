"""The block in the hosts file: what is not ours stays byte for byte."""

from ipaddress import IPv6Address

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from warren.errors import MachineError
from warren.names import InstanceName
from warren.plan.desired import HostLine
from warren.plan.hosts import block_lines, with_block, without_block

VPN, HOME = InstanceName("vpn"), InstanceName("home")
LINES = (HostLine(IPv6Address("fd00::1"), "server1.vpn"), HostLine(IPv6Address("fd00::2"), "laptop1.vpn"))
TEXT = tuple(map(str, LINES))

# Real hosts files, and anything at all; line ends and comments often, so that the cuts are exercised.
contents = st.one_of(
    st.binary(max_size=80),
    st.lists(
        st.sampled_from(
            [b"127.0.0.1 localhost", b"# END", b"# BEGIN warren", b"\xff\xfe", b"\r", b"\n", b"\n", b"\r\n", b"#"]
        )
    ).map(b"".join),
)
host_lines = st.lists(
    st.builds(HostLine, st.ip_addresses(v=6), st.sampled_from(["server1.vpn", "laptop1.vpn", "m.example"])), max_size=4
).map(tuple)


def has_marker_of_ours(content: bytes) -> bool:
    return any(
        line.split()[:3] in ([b"#", b"BEGIN", b"warren"], [b"#", b"END", b"warren"]) and len(line.split()) > 3
        for line in content.split(b"\n")
    )


@given(contents, host_lines)
def test_taking_the_block_out_gives_back_every_byte(content: bytes, lines: tuple[HostLine, ...]) -> None:
    assume(not has_marker_of_ours(content))
    assert without_block(with_block(content, VPN, lines), VPN) == content


@given(contents, host_lines)
def test_what_was_written_is_read(content: bytes, lines: tuple[HostLine, ...]) -> None:
    assume(not has_marker_of_ours(content))
    assert block_lines(content, VPN) is None
    assert block_lines(with_block(content, VPN, lines), VPN) == tuple(map(str, lines))


@given(contents, host_lines, host_lines)
def test_writing_twice_is_writing_the_last(
    content: bytes, first: tuple[HostLine, ...], last: tuple[HostLine, ...]
) -> None:
    assume(not has_marker_of_ours(content))
    once = with_block(content, VPN, last)
    assert with_block(once, VPN, last) == once
    assert with_block(with_block(content, VPN, first), VPN, last) == once


@given(contents, host_lines, host_lines, st.booleans(), st.booleans())
def test_instances_do_not_see_each_other(
    content: bytes, one: tuple[HostLine, ...], other: tuple[HostLine, ...], vpn_first: bool, vpn_leaves_first: bool
) -> None:
    assume(not has_marker_of_ours(content))
    blocks = {VPN: one, HOME: other}
    both = content
    for instance in (VPN, HOME) if vpn_first else (HOME, VPN):
        both = with_block(both, instance, blocks[instance])
    for instance, lines in blocks.items():
        assert block_lines(both, instance) == tuple(map(str, lines))
    for instance in (VPN, HOME) if vpn_leaves_first else (HOME, VPN):
        both = without_block(both, instance)
    assert both == content


def test_the_block_as_it_looks() -> None:
    assert with_block(b"127.0.0.1 localhost\n", VPN, LINES).decode() == (
        "127.0.0.1 localhost\n"
        "# BEGIN warren vpn (kept by warren: edits between these two lines are lost)\n"
        "fd00::1 server1.vpn\n"
        "fd00::2 laptop1.vpn\n"
        "# END warren vpn\n"
    )


def test_a_file_without_a_last_newline_gets_the_block_at_its_start_and_keeps_its_end() -> None:
    changed = with_block(b"127.0.0.1 localhost", VPN, LINES)
    assert changed.startswith(b"# BEGIN warren vpn ")
    assert changed.endswith(b"# END warren vpn\n127.0.0.1 localhost")


def test_a_block_that_was_moved_stays_where_it_is() -> None:
    block = with_block(b"", VPN, LINES)
    changed = with_block(b"1.1.1.1 above\r\n" + block + b"2.2.2.2 below", VPN, LINES[:1])
    assert changed == b"1.1.1.1 above\r\n" + with_block(b"", VPN, LINES[:1]) + b"2.2.2.2 below"


@pytest.mark.parametrize(
    ("edit", "seen"),
    [
        (lambda block: block.replace(b"fd00::1", b"fd00::9"), ("fd00::9 server1.vpn", TEXT[1])),
        (lambda block: block.replace(b"# END", b"\n# mine\n# END"), (*TEXT, "", "# mine")),
        (lambda block: block.replace(b"\n", b"\r\n"), tuple(f"{line}\r" for line in TEXT)),
        (lambda block: block.replace(b"server1", b"\xff"), (r"fd00::1 \xff.vpn", TEXT[1])),
        (lambda block: block.removesuffix(b"\n"), TEXT),
        (lambda block: block.replace(b"# BEGIN", b"  #  BEGIN").replace(b"(kept", b"(once kept"), TEXT),
    ],
)
def test_edits_by_hand_are_seen_and_replaced(edit: object, seen: tuple[str, ...]) -> None:
    assert callable(edit)
    edited = edit(with_block(b"127.0.0.1 localhost\n", VPN, LINES))
    assert block_lines(edited, VPN) == seen
    assert block_lines(with_block(edited, VPN, LINES), VPN) == TEXT


BEGIN, END = "# BEGIN warren vpn", "# END warren vpn"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (f"a\n{BEGIN} (kept)\nfd00::1 x\n", 2, f'"{BEGIN} (kept)" has no END after it'),
        (f"a\n{END}\n", 2, f'"{END}" has no BEGIN before it'),
        (f"{BEGIN}\n{END}\nb\n{BEGIN}\n{END}\n", 4, "is the second block; the first is at line 1"),
        (f"{BEGIN}\n{BEGIN}\n{END}\n", 2, "is in the block that begins at line 1"),
        (f"{BEGIN}\n# BEGIN warren home\n{END}\n# END warren home\n", 2, "is in the block that begins at line 1"),
        (f"{BEGIN}\n# END warren home\n{END}\n", 2, "is in the block that begins at line 1"),
        (f"{BEGIN}\n{END}\n{END}\n", 3, "has no BEGIN before it"),
        (f"{BEGIN}\nfd00::1 x\n{END}1.2.3.4 appended\n", 3, "is in the block that begins at line 1"),
    ],
)
def test_markers_that_do_not_say_where_the_block_is_are_refused(text: str, place: int, words: str) -> None:
    for act in (block_lines, without_block):
        with pytest.raises(MachineError) as caught:
            act(text.encode(), VPN, file="hosts")
        assert caught.value.where == f"hosts:{place}"
        assert words in caught.value.what
        assert "by hand" in caught.value.mend
    with pytest.raises(MachineError):
        with_block(text.encode(), VPN, LINES)


def test_the_broken_block_of_another_instance_is_no_reason_to_refuse() -> None:
    content = b"# BEGIN warren home\nfd00::5 x.home\n"
    changed = with_block(content, VPN, LINES)
    assert block_lines(changed, VPN) == TEXT
    assert without_block(changed, VPN) == content


def test_an_instance_whose_name_begins_like_another() -> None:
    content = with_block(b"", InstanceName("vpn2"), LINES[:1])
    assert block_lines(content, VPN) is None
    assert block_lines(with_block(content, VPN, LINES), InstanceName("vpn2")) == TEXT[:1]
