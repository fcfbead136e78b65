# Runs as root on a machine: takes its instances down, then removes all that install and the agent left there.
# The last line on stdout says which instances there were. Exit code 4: an instance could not be taken down, and
# everything else is still there.
set -u
instances=
unit=/etc/systemd/system/warren.service

give_up() {
    [ -d /run/systemd/system ] && [ -e "$unit" ] && systemctl --quiet enable --now warren.service
    exit 4
}

[ -d /run/systemd/system ] && [ -e "$unit" ] && systemctl --quiet disable --now warren.service

# An agent that somebody started by hand, where there is no systemd; it would bring back what is taken down.
for each in /proc/[0-9]*; do
    words=$(tr '\0' ' ' 2> /dev/null < "$each/cmdline" | cut -d ' ' -f 2-4)
    [ "$words" = "-I /usr/local/lib/warren/warren.pyz agent" ] && kill "${each#/proc/}"
done

for each in /var/lib/warren/*/network.json; do
    [ -e "$each" ] || continue
    instance=$(basename "$(dirname "$each")")
    /usr/local/bin/warren down "$instance" || give_up
    instances="$instances $instance"
done

# One that is left has nothing to go back to.
[ -d /run/systemd/system ] && systemctl --quiet stop 'warren-restore-*.timer' 'warren-restore-*.service'

for each in /var/lib/warren /etc/warren /run/warren /usr/local/lib/warren; do
    [ -d "$each" ] || continue
    find "$each" -mindepth 1 -delete || exit 4
    rmdir "$each" 2> /dev/null # a mount point, as in a container, stays
done
rm -f /usr/local/bin/warren "$unit" || exit 4
rmdir /run/wireguard 2> /dev/null # others' interfaces have their sockets there
[ -d /run/systemd/system ] && systemctl daemon-reload
echo "$instances"
