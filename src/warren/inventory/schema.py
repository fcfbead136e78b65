"""The shape of the inventory: which tables there are, which keys they have, and of what kind their values are.

One model, used twice: to find what is wrong with a tree, and to write the JSON Schema for editors. The tree itself is
what is worked with afterwards; nothing is copied out of it, so that ten thousand machines stay cheap.

What has the type `Any` is read without meaning: existing clan inventories carry it.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic_core import ErrorDetails, PydanticCustomError
from typing_extensions import TypedDict, is_typeddict

from warren.inventory.findings import Path
from warren.names import HOST_NAME_PATTERN, HOST_NAME_RULE

PORTS = range(1, 65536)
MTUS = range(1280, 65536)
KEY_AGES_DAYS = range(1, 36501)

_STRICT = ConfigDict(extra="forbid", strict=True)

Name: TypeAlias = Annotated[str, Field(pattern=HOST_NAME_PATTERN, description=f"A name: {HOST_NAME_RULE}.")]
ProgramName: TypeAlias = Annotated[str, Field(pattern=HOST_NAME_PATTERN)]
Port: TypeAlias = Annotated[int, Field(ge=PORTS.start, lt=PORTS.stop)]
Mtu: TypeAlias = Annotated[int, Field(ge=MTUS.start, lt=MTUS.stop)]
Days: TypeAlias = Annotated[int, Field(ge=KEY_AGES_DAYS.start, lt=KEY_AGES_DAYS.stop)]
Moment: TypeAlias = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})?)?$")]
# What ssh is given: nothing that it would take for an option, nothing that a shell would split.
SshHost: TypeAlias = Annotated[str, Field(pattern=r"^[^-\s]\S*$")]
Keys: TypeAlias = Literal["machine", "vault"]
Vault: TypeAlias = Literal["age", "sops"]


_KEYS = (
    "`machine`: it makes its private keys itself, and they never leave it. "
    "`vault`: made here, kept encrypted in the vars, and brought to it."
)


@with_config(_STRICT)
class Meta(TypedDict, total=False):
    """About the inventory as a whole."""

    name: Annotated[Name | None, Field(description="What the whole is called, for people.")]
    description: Annotated[str | None, Field(description="Free text.")]
    max_key_age_days: Annotated[
        Days | None, Field(description="`warren check` names keys that are older, `warren vars rotate` replaces them.")
    ]
    recipients: Annotated[
        list[str] | None,
        Field(description="Who can open what is in the vault: age1… and ssh-ed25519 or ssh-rsa keys of the operators."),
    ]
    vault: Annotated[
        Vault | None,
        Field(description="How the vault is kept: `age`, one age file for each key; `sops`, as clan keeps secrets."),
    ]
    icon: Any
    domain: Any
    tld: Any


@with_config(_STRICT)
class Deploy(TypedDict, total=False):
    """How the operator reaches the machine with ssh."""

    host: Annotated[SshHost | None, Field(description="`user@host`, as ssh takes it; without it, the machine's name.")]
    port: Annotated[Port | None, Field(description="The TCP port of its sshd; without it, what ssh says.")]
    via: Annotated[SshHost | None, Field(description="A jump host, as `ssh -J` takes it.")]
    pull: Annotated[
        bool | None,
        Field(description="`true`: ssh does not get there; it fetches its documents from controllers. For peers."),
    ]
    targetHost: Annotated[SshHost | None, Field(description="clan's name for `host`.")]
    buildHost: Any
    forwardAgent: Any


@with_config(_STRICT)
class Machine(TypedDict, total=False):
    """A computer."""

    tags: Annotated[list[str], Field(description="Groups it belongs to. Every machine has the tag `all`.")]
    description: Annotated[str | None, Field(description="Free text.")]
    deploy: Deploy
    managed: Annotated[
        bool | None, Field(description="`false`: Warren does not run on it, `warren render` says what it needs.")
    ]
    keys: Annotated[Keys | None, Field(description=f"Of all its meshes, unless their settings say otherwise. {_KEYS}")]
    expires: Annotated[
        Moment | None,
        Field(
            description="Until when others let it in: the end of a day, `2026-12-31`, or `2026-12-31T18:00`; "
            "in UTC unless it says otherwise. For peers."
        ),
    ]
    name: Any
    icon: Any
    machineClass: Any
    installedAt: Any


_DOMAIN = "What follows the machine's name in host names; one for the instance, its name unless set."
_MTU = "Of the interface; derived from the path to the endpoints unless set."
_ROUTES = "IPv6 networks behind the controller that the mesh reaches through it; none unless set."
_INTERFACE = "Name of the network interface (at most 15 bytes); the instance's name unless set."


@with_config(_STRICT)
class ControllerSettings(TypedDict, total=False):
    """What can be set of a controller."""

    endpoint: Annotated[str | None, Field(description="Where others reach it: a host name or address, maybe `:port`.")]
    port: Annotated[Port | None, Field(description="The UDP port it listens on; 51820 unless set.")]
    domain: Annotated[str | None, Field(description=_DOMAIN)]
    mtu: Annotated[Mtu | None, Field(description=_MTU)]
    interface: Annotated[str | None, Field(description=_INTERFACE)]
    routes: Annotated[list[str] | None, Field(description=_ROUTES)]
    keys: Annotated[Keys | None, Field(description=_KEYS)]
    imports: Annotated[list[ControllerSettings], Field(max_length=1)]  # as clan prints settings that it evaluated
    _file: Any


@with_config(_STRICT)
class PeerSettings(TypedDict, total=False):
    """What can be set of a peer."""

    controller: Annotated[
        str | None, Field(description="Whose subnet its name points into; needed when there are several controllers.")
    ]
    domain: Annotated[str | None, Field(description=_DOMAIN)]
    mtu: Annotated[Mtu | None, Field(description=_MTU)]
    interface: Annotated[str | None, Field(description=_INTERFACE)]
    keys: Annotated[Keys | None, Field(description=_KEYS)]
    imports: Annotated[list[PeerSettings], Field(max_length=1)]  # as clan prints settings that it evaluated
    _file: Any


@with_config(_STRICT)
class ControllerEntry(TypedDict, total=False):
    """A machine, or all machines with a tag, in the role of controller."""

    settings: ControllerSettings


@with_config(_STRICT)
class PeerEntry(TypedDict, total=False):
    """A machine, or all machines with a tag, in the role of peer."""

    settings: PeerSettings


def _tag_table(value: Any) -> Any:
    """`["laptop"]` is short for `{"laptop": {}}`."""
    if not isinstance(value, list):
        return value
    if not all(isinstance(tag, str) for tag in value):
        raise PydanticCustomError("tag_list", "not all of the list are tags")
    return {tag: {} for tag in value}


ControllerTags: TypeAlias = Annotated[
    dict[str, ControllerEntry],
    BeforeValidator(_tag_table, json_schema_input_type=dict[str, ControllerEntry] | list[str]),
]
PeerTags: TypeAlias = Annotated[
    dict[str, PeerEntry],
    BeforeValidator(_tag_table, json_schema_input_type=dict[str, PeerEntry] | list[str]),
]


@with_config(_STRICT)
class ControllerRole(TypedDict, total=False):
    """The machines that have a public endpoint and route for the others."""

    machines: Annotated[dict[Name, ControllerEntry], Field(description="By name, each with its own settings.")]
    tags: Annotated[ControllerTags, Field(description="All machines that have one of these tags.")]
    settings: Annotated[ControllerSettings, Field(description="Of all machines in the role, unless set nearer.")]
    extraModules: Any


@with_config(_STRICT)
class PeerRole(TypedDict, total=False):
    """The machines that connect to every controller, and reach each other through them."""

    machines: Annotated[dict[Name, PeerEntry], Field(description="By name, each with its own settings.")]
    tags: Annotated[PeerTags, Field(description="All machines that have one of these tags.")]
    settings: Annotated[PeerSettings, Field(description="Of all machines in the role, unless set nearer.")]
    extraModules: Any


@with_config(_STRICT)
class Roles(TypedDict, total=False):
    """Who is what in the mesh."""

    controller: ControllerRole
    peer: PeerRole


@with_config(_STRICT)
class Module(TypedDict, total=False):
    """What kind of thing the instance is."""

    name: Annotated[str, Field(description="`wireguard`; instances of other modules are not Warren's.")]
    input: Any


@with_config(_STRICT)
class Instance(TypedDict, total=False):
    """One mesh."""

    module: Module
    roles: Roles
    psk: Annotated[
        bool | None,
        Field(description="`true`: each pair of machines that speak to each other has a preshared key as well."),
    ]
    psk_command: Annotated[
        ProgramName | None,
        Field(
            description="Preshared keys that a program says on each machine, such as one that exchanges them with "
            "post-quantum cryptography: its name in `/etc/warren/psk-commands` there."
        ),
    ]


@with_config(_STRICT)
class Tree(TypedDict, total=False):
    """What the operator writes."""

    meta: Meta
    machines: Annotated[dict[Name, Machine], Field(description="Every machine, by name.")]
    tags: Annotated[dict[str, list[str]], Field(description="Further machines of a tag, by their names.")]
    instances: Annotated[dict[Name, Instance], Field(description="Every mesh, by name.")]
    modules: Any
    services: Any
    assertions: Any


TREE: TypeAdapter[Tree] = TypeAdapter(Tree)


def shape_errors(tree: object) -> list[ErrorDetails]:
    """What pydantic has to say of the tree: nothing when its shape is right, and `tree` is a Tree then."""
    try:
        TREE.validate_python(tree)
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def known_keys(path: Path) -> tuple[str, ...]:
    """The keys that mean something in the table at `path`; none where any key may stand."""
    kind: Any = Tree
    for key in path:
        kind = _child(kind, key)
    return tuple(key for key, child in _fields(kind).items() if child is not Any and key != "imports")


def _child(kind: Any, key: str | int) -> Any:
    if fields := _fields(kind):
        return fields.get(str(key))
    arguments = get_args(kind)  # of dict[str, X] or list[X]
    return arguments[-1] if arguments else None


@cache
def _fields(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind) if is_typeddict(kind) else {}
