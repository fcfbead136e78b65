"""Hypothesis strategies for the core's values."""

from hashlib import sha256
from ipaddress import IPv6Network

from hypothesis import strategies as st

from warren.inventory.model import Controller, Deploy, Instance, Inventory, Machine, PeerMachine
from warren.names import InstanceName, InterfaceName, MachineName, interface_name_problem
from warren.network.document import Document
from warren.network.preshared import Exchange, exchanges_text, pairs
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.wireguard.endpoint import Endpoint
from warren.wireguard.keys import PublicKey
from warren.wireguard.preshared import NO_PRESHARED_KEY, fingerprint

# Names that collide (tests/vectors/addresses.json) are drawn often, so that collisions are the rule and no curiosity.
COLLIDING = ("m33", "m156", "server34", "server245", "m13553", "m23864")

machine_names = st.one_of(
    st.sampled_from(COLLIDING), st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
).map(MachineName)
instance_names = (
    st.one_of(st.sampled_from(("vpn", "wg4267", "wg6978")), st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True))
    .filter(lambda name: interface_name_problem(name) is None)
    .map(InstanceName)
)


def public_key(machine: str, salt: str = "") -> PublicKey:
    """A key that follows from the name; nobody knows its private half."""
    return PublicKey(sha256(f"{salt}{machine}".encode()).digest())


def _routes_behind(number: int) -> st.SearchStrategy[tuple[IPv6Network, ...]]:
    """Networks that no other controller has."""
    networks = st.sampled_from([IPv6Network(f"2001:db8:{number:x}:{each}::/64") for each in range(3)])
    return st.sets(networks, max_size=2).map(lambda found: tuple(sorted(found)))


@st.composite
def instances(draw: st.DrawFn, name: InstanceName, names: list[MachineName]) -> Instance:
    """An instance of at least one controller; every name is in one role or the other."""
    split = draw(st.integers(1, min(5, len(names))))
    controllers, peers = names[:split], names[split:]
    mtu = st.one_of(st.none(), st.integers(1280, 9000))
    interface = InterfaceName(name)
    return Instance(
        name,
        draw(st.sampled_from((str(name), "mesh.example"))),
        {
            each: Controller(
                each, Endpoint(f"{each}.example.com", 51820), 51820, interface, draw(mtu), draw(_routes_behind(number))
            )
            for number, each in enumerate(sorted(controllers))
        },
        {each: PeerMachine(each, draw(st.sampled_from(controllers)), interface, draw(mtu)) for each in sorted(peers)},
    )


@st.composite
def inventories(draw: st.DrawFn, max_machines: int = 9, max_instances: int = 2) -> Inventory:
    names = draw(st.lists(machine_names, min_size=1, max_size=max_machines, unique=True))
    instance_list = draw(st.lists(instance_names, min_size=1, max_size=max_instances, unique=True))
    return Inventory(
        "burrow",
        {name: Machine(name, deploy=Deploy(pull=draw(st.booleans()))) for name in sorted(names)},
        {name: draw(instances(name, draw(st.permutations(names)))) for name in sorted(instance_list)},
    )


@st.composite
def _preshared(draw: st.DrawFn, instance: Instance) -> dict[MachineName, str]:
    every = list(pairs(instance.controllers, instance.peers))
    found: dict[MachineName, dict[MachineName, Exchange]] = {}
    for maker, other in draw(st.lists(st.sampled_from(every), max_size=4, unique=True)) if every else ():
        one, former = fingerprint(f"{maker} {other}".encode()), fingerprint(f"{maker} {other} former".encode())
        exchanges = (Exchange(one), Exchange(one, former=former), Exchange(one, former=NO_PRESHARED_KEY),
                     Exchange(NO_PRESHARED_KEY, former=former))  # fmt: skip
        found.setdefault(maker, {})[other] = draw(st.sampled_from(exchanges))
    return {maker: exchanges_text(others) for maker, others in found.items()}


@st.composite
def documents(draw: st.DrawFn, keys: bool = True, max_machines: int = 9) -> Document:
    """A resolved document; with `keys`, every machine has one. The keys of some are being rotated; some pairs have
    preshared keys."""
    inventory = draw(inventories(max_machines=max_machines, max_instances=1))
    (instance,) = inventory.instances.values()
    with_key = instance.members if keys else draw(st.sets(st.sampled_from(sorted(instance.members))))
    rotated = draw(st.sets(st.sampled_from(sorted(with_key)), max_size=2)) if with_key else ()
    split = draw(st.integers(0, 2))
    stored = Stored(
        public_keys={name: public_key(name).text for name in with_key},
        next_keys={name: public_key(name, "next").text for name in sorted(rotated)[:split]},
        former_keys={name: public_key(name, "former").text for name in sorted(rotated)[split:]},
        preshared=draw(_preshared(instance)),
    )
    return resolve(inventory, {instance.name: stored}, serial=draw(st.integers(0, 2**40)))[instance.name]
