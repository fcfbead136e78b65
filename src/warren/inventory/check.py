"""What the tree means: the inventory as values, and everything that cannot be, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warren.inventory.across import check_across
from warren.inventory.machines import read_machines
from warren.inventory.mesh import read_mesh
from warren.inventory.model import Inventory
from warren.inventory.recipients import read_recipients
from warren.inventory.report import Report
from warren.names import InstanceName

if TYPE_CHECKING:
    from warren.inventory import schema

_UNNAMED = "warren"


def check(tree: schema.Tree, notes: tuple[str, ...], report: Report) -> Inventory:
    """The inventory; it is only whole when nothing was reported."""
    machines = read_machines(tree, report)
    instances = tree.get("instances", {})
    meshes = [read_mesh(InstanceName(name), entry, machines, report) for name, entry in instances.items()]
    check_across(meshes, machines, report)
    recipients = read_recipients(tree.get("meta", {}).get("recipients") or [], meshes, machines, report)
    return Inventory(
        name=tree.get("meta", {}).get("name") or _UNNAMED,
        machines=machines.by_name,
        instances=dict(sorted((mesh.instance.name, mesh.instance) for mesh in meshes)),
        max_key_age_days=tree.get("meta", {}).get("max_key_age_days"),
        notes=notes,
        recipients=recipients,
        vault=tree.get("meta", {}).get("vault") or "age",
    )
