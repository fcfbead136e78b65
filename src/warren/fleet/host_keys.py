"""The ssh host keys of machines, asked of them over ssh: what is kept encrypted for a machine, it can open as well."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from warren.errors import MachineError
from warren.fleet import ssh
from warren.fleet.ssh import Target
from warren.names import MachineName
from warren.vars.host_keys import KEY_TYPE, accepted_host_key, host_key_variable

_ASK_S = 30.0
_DEFAULT = "/etc/ssh/ssh_host_ed25519_key"

# Those that its sshd is configured to have; public halves, and only where the private one is there.
_SCRIPT = f"""\
PATH=$PATH:/usr/sbin:/sbin
for each in $(sshd -T 2> /dev/null | sed -n "s/^hostkey //p") {_DEFAULT}; do
    [ -e "$each" ] && [ -e "$each.pub" ] && cat "$each.pub"
done
exit 0
"""


async def ask_host_keys(
    targets: Mapping[MachineName, Target], parallel: int
) -> tuple[dict[MachineName, str], dict[MachineName, str]]:
    """The keys that were told, and why others were not."""
    free = asyncio.Semaphore(parallel)
    told: dict[MachineName, str] = {}
    problems: dict[MachineName, str] = {}

    async def one(target: Target) -> None:
        try:
            async with free:
                finished = await ssh.run(target, ["sh", "-c", _SCRIPT], timeout_s=_ASK_S, is_public=True)
            told[target.machine] = _first(target, finished.out.decode(errors="replace"))
        except MachineError as error:
            problems[target.machine] = error.what

    await asyncio.gather(*map(one, targets.values()))
    return told, problems


def _first(target: Target, said: str) -> str:
    for line in said.splitlines():
        if line.startswith(f"{KEY_TYPE} "):
            return accepted_host_key(host_key_variable(target.machine), line)
    raise MachineError("it has no ed25519 host key", where=target.machine)
