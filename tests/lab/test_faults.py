"""Faults as values, and as what nft and ip take."""

import pytest

from namespaces import in_namespace, sh
from warren.errors import UsageError
from warren.lab.faults import Faults, detour, drop_rules, parse_delay, parse_loss, without_detour
from warren.lab.programs import ip_batch, load_rules
from warren.lab.underlay import NETWORK4, NETWORK6, Site
from warren.names import MachineName

SITE = Site(MachineName("laptop1"), 7, (NETWORK4[7], NETWORK6[7]))


@pytest.mark.parametrize(
    ("text", "percent"), [("20%", 20.0), ("0.5%", 0.5), ("100", 100.0), (" 3 % ", 3.0), ("0%", 0.0)]
)
def test_loss_is_read_in_percent(text: str, percent: float) -> None:
    assert parse_loss(text) == percent


@pytest.mark.parametrize(("text", "milliseconds"), [("50ms", 50.0), ("0.5s", 500.0), ("50", 50.0), ("60 s", 60_000.0)])
def test_delay_is_read_in_milliseconds(text: str, milliseconds: float) -> None:
    assert parse_delay(text) == milliseconds


@pytest.mark.parametrize("text", ["", "x", "-1", "101%", "1e3", "5 ms", "%"])
def test_what_is_no_loss_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no loss"):
        parse_loss(text)


@pytest.mark.parametrize("text", ["", "x", "-1ms", "61s", "1m", "5%", "ms"])
def test_what_is_no_delay_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no delay"):
        parse_delay(text)


def test_a_link_says_its_faults() -> None:
    assert str(Faults()) == ""
    assert str(Faults(cut=True, loss_percent=2.5, delay_ms=50)) == "cut, loss 2.5%, delay 50ms"


@pytest.mark.root
def test_rules_replace_those_before() -> None:
    def loaded() -> list[str]:
        load_rules(drop_rules([(SITE, Faults(cut=True))]))
        load_rules(drop_rules([(SITE, Faults(loss_percent=100))]))
        load_rules(drop_rules([(SITE, Faults(loss_percent=20))]))
        both = sh("nft list ruleset")
        load_rules(drop_rules([(SITE, Faults())]))
        return [both, sh("nft list ruleset")]

    lossy, healthy = in_namespace(loaded)
    assert lossy.count("numgen random mod 100000 < 20000 drop") == 2
    assert lossy.count("drop") == 2
    assert "drop" not in healthy


@pytest.mark.root
def test_a_detour_goes_without_trace_and_going_twice_is_no_harm() -> None:
    def routing() -> str:
        return sh("ip rule; ip -6 rule; ip route show table all; ip -6 route show table all")

    def there_and_back() -> tuple[str, str, str]:
        sh("ip link add m7 type veth peer name other && ip link set m7 up && ip link add delay7 type veth peer name x")
        sh("ip link set delay7 up addrgenmode none && ip link set x up addrgenmode none && ip link set other up")
        before = routing()
        for version in (4, 6):
            ip_batch(detour(SITE, version), f"-{version}")
        during = routing()
        for version in (4, 6, 4, 6):
            ip_batch(without_detour(SITE), f"-{version}")
        return before, during, routing()

    before, during, after = in_namespace(there_and_back)
    assert during != before
    assert "delay7" in during
    assert after == before
