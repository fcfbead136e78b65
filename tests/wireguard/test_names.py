"""What a name may be."""

import pytest

from warren.names import interface_name_problem, is_domain, is_host_name


@pytest.mark.parametrize("name", ["a", "server1", "web-1", "under_score", "A1", "0", "x" * 63])
def test_host_names(name: str) -> None:
    assert is_host_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a.b", "a b", "ä", "x" * 64, "a\n", "a/b", "٣"])
def test_no_host_names(name: str) -> None:
    assert not is_host_name(name)


def test_domains() -> None:
    assert is_domain("mesh.example.com")
    assert is_domain("vpn")
    assert not is_domain("mesh..example")
    assert not is_domain(".")
    assert not is_domain("")


@pytest.mark.parametrize("name", ["vpn", "x" * 15, "wg-0", "a.b", "é" * 7])
def test_interface_names(name: str) -> None:
    assert interface_name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 16, "16 bytes long"), ("é" * 8, "16 bytes long"), ("a/b", "contains '/'"), ("a b", "contains ' '"),
        ("vpn%d", "contains '%'"),
        ("a:b", "contains ':'"), ("", "not a name"), (".", "not a name"), ("..", "not a name"), ("all", "reserved"),
        ("lo", "reserved"), ("a\tb", "contains"), ("a\x01", "contains"),
    ],
)  # fmt: skip
def test_what_linux_refuses_as_an_interface(name: str, reason: str) -> None:
    assert reason in (interface_name_problem(name) or "")
