"""Small inventories from names."""

from warren.inventory.model import Controller, Instance, Inventory, Machine, PeerMachine
from warren.names import InstanceName, InterfaceName, MachineName
from warren.wireguard.endpoint import Endpoint


def mesh(controllers: str, peers: str = "", instance: str = "vpn") -> Instance:
    """An instance from names, separated by spaces."""
    first = MachineName(controllers.split()[0])
    name, interface = InstanceName(instance), InterfaceName(instance)
    return Instance(
        name,
        instance,
        {
            (m := MachineName(each)): Controller(m, Endpoint(f"{each}.example.com", 51820), 51820, interface)
            for each in sorted(controllers.split())
        },
        {(m := MachineName(each)): PeerMachine(m, first, interface) for each in sorted(peers.split())},
    )


def inventory(*instances: Instance) -> Inventory:
    names = sorted({name for instance in instances for name in instance.members})
    return Inventory("burrow", {name: Machine(name) for name in names}, {each.name: each for each in instances})
