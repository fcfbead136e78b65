"""A plan as a NixOS module."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from warren.plan.desired import Desired
from warren.render.desired import allowed_ips_texts
from warren.render.foreign import (
    File,
    add_unreachable,
    check_interface,
    commented,
    delete_unreachable,
    drop_firewall,
    forwarding_sysctls,
    load_firewall,
    origin,
    peers_by_name,
)
from warren.wireguard.device import Peer


@dataclass(frozen=True, slots=True)
class _Expression:
    """Nix as it stands, not a text. In a list it has to be one word."""

    text: str


_Value: TypeAlias = "str | int | bool | _Expression | Sequence[_Value] | Mapping[str, _Value]"


def nixos(desired: Desired) -> tuple[File, ...]:
    """One module, for `imports`. It works with the scripted networking of NixOS and with its networkd."""
    check_interface(desired)
    path = f"/etc/nixos/warren-{desired.instance}.nix"
    notes = [
        f"{path}: {origin(desired, 'nixos')}",
        f"Key: umask 077; wg genkey > {_key_path(desired)}",
        "(or set privateKeyFile yourself: with networking.useNetworkd, the user systemd-network reads it)",
    ]
    return (File(path, f"{commented(notes)}{{ lib, pkgs, ... }}:\n{_nix(_module(desired))}\n"),)


def _key_path(desired: Desired) -> str:
    return f"/var/lib/wireguard/{desired.interface}.key"


def _module(desired: Desired) -> dict[str, _Value]:
    networking: dict[str, _Value] = {
        "wireguard": {"enable": True, "interfaces": {desired.interface: _interface(desired)}},
        "hosts": {str(line.address): [line.name] for line in desired.hosts},
    }
    module: dict[str, _Value] = {
        "networking": networking,
        "systemd": {"services": {f"warren-{desired.instance}": _service(desired)}},
    }
    if desired.listen_port is not None:
        # The second matters where networking.firewall.filterForward is on.
        networking["firewall"] = {
            "allowedUDPPorts": [desired.listen_port],
            "extraForwardRules": "; ".join(_forward_rules(desired)),
        }
    if desired.routes:
        routes: list[_Value] = [
            {"address": str(each.network_address), "prefixLength": each.prefixlen} for each in sorted(desired.routes)
        ]
        networking["interfaces"] = {desired.interface: {"ipv6": {"routes": routes}}}
    if sysctls := forwarding_sysctls(desired):
        module["boot"] = {"kernel": {"sysctl": dict.fromkeys(sysctls, 1)}}
    return module


def _forward_rules(desired: Desired) -> Iterator[str]:
    into, out = f'iifname "{desired.interface}"', f'oifname "{desired.interface}"'
    yield f"{into} {out} accept"
    for network in desired.firewall.routes:
        yield f"{into} ip6 daddr {network} accept"
        yield f"{out} ip6 saddr {network} accept"


def _interface(desired: Desired) -> dict[str, _Value]:
    interface: dict[str, _Value] = {
        "ips": [str(address) for address in sorted(desired.addresses)],
        "mtu": desired.mtu_bytes,
        "privateKeyFile": _Expression(f"lib.mkDefault {_text(_key_path(desired))}"),
        "allowedIPsAsRoutes": False,  # the addresses' own networks are routes enough
        "peers": [_peer(peer) for _, peer in peers_by_name(desired)],
    }
    if desired.listen_port is not None:
        interface["listenPort"] = desired.listen_port
    return interface


def _peer(peer: Peer) -> dict[str, _Value]:
    settings: dict[str, _Value] = {
        "publicKey": peer.public_key.text,
        "allowedIPs": allowed_ips_texts(peer.allowed_ips),
        "persistentKeepalive": peer.keepalive_s,
    }
    if peer.endpoint is not None:
        settings["endpoint"] = str(peer.endpoint)
    return settings


def _service(desired: Desired) -> dict[str, _Value]:
    """What NixOS has no option for that all of its firewalls and network backends would take."""
    return {
        "description": f"Firewall and routes of the mesh {desired.instance}",
        "wantedBy": ["multi-user.target"],
        "wants": ["network-pre.target"],
        "before": ["network-pre.target"],
        "after": ["nftables.service"],
        "path": [_Expression("pkgs.iproute2"), _Expression("pkgs.nftables")],
        "serviceConfig": {"Type": "oneshot", "RemainAfterExit": True},
        "script": f"{add_unreachable(desired)}\n{load_firewall(desired)}\n",
        "postStop": f"{drop_firewall(desired)}\n{delete_unreachable(desired)}\n",
    }


def _nix(value: _Value, indent: str = "") -> str:
    """The value as a Nix expression, a line for each member."""
    match value:
        case _Expression(text):
            return text
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _text(value)
        case Mapping():
            members = [f"{_key(key)} = {_nix(each, indent + '  ')};" for key, each in value.items()]
            return _block("{", members, "}", indent)
        case _:
            return _block("[", [_nix(each, indent + "  ") for each in value], "]", indent)


def _block(start: str, lines: Sequence[str], end: str, indent: str) -> str:
    if len(lines) <= 1 and "\n" not in "".join(lines):
        return " ".join([start, *lines, end])
    return "\n".join([start, *(f"{indent}  {line}" for line in lines), f"{indent}{end}"])


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${").replace("\n", "\\n")
    return f'"{escaped}"'


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) and name not in _KEYWORDS else _text(name)


_BARE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_KEYWORDS = frozenset(("assert", "else", "if", "in", "inherit", "let", "or", "rec", "then", "with"))
