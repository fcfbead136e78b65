# Runs as root on a machine before Warren is there: looks for what Warren needs, then gives way to Python.
# $1: the Python program that does the rest, which reads stdin; $2: "yes" to install missing packages.
# What is wrong is one line of JSON on stdout, and exit code 4; what programs say goes to stderr.
set -u
# The system's own programs first: a Python in somebody's home is none that a service may run.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH
code=$1
may_install=$2

problem() {
    printf '{"problem": "%s", "found": "%s"}\n' "$1" "$2"
    exit 4
}

have() {
    command -v "$1" > /dev/null 2>&1
}

# The distribution's own first; a newer one beside it where that is too old.
find_python() {
    for each in python3 python3.14 python3.13 python3.12 python3.11; do
        if have "$each" && "$each" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            command -v "$each"
            return
        fi
    done
}

has_kernel_wireguard() {
    [ -d /sys/module/wireguard ] && return
    modprobe -q wireguard 2> /dev/null && [ -d /sys/module/wireguard ] && return
    # In a network of its own, which goes at once: the kernel loads its module then, where it has one.
    unshare -n ip link add probe type wireguard 2> /dev/null
}

missing() {
    have nft || echo nftables
    have wg || echo wireguard-tools
    have ssh-keygen || echo "$ssh_package"
    [ -n "$(find_python)" ] || echo "$python_package"
    [ -n "$kernel_wireguard" ] || have wireguard-go || echo wireguard-go
}

install_packages() {
    if have apt-get; then
        export DEBIAN_FRONTEND=noninteractive
        { apt-get -q update && apt-get -q install -y --no-install-recommends "$@"; } >&2 < /dev/null
    elif have dnf; then
        dnf -q -y install "$@" >&2 < /dev/null
    else
        problem no-package-manager "$*"
    fi
}

kernel_wireguard=
has_kernel_wireguard && kernel_wireguard=yes
ssh_package=openssh-client
python_package=python3
have dnf && ! have apt-get && ssh_package=openssh
have python3 && python_package=python3.11

packages=$(missing)
if [ -n "$packages" ] && [ "$may_install" = yes ]; then
    # shellcheck disable=SC2086 # one word for each package
    install_packages $packages || problem packages "$(echo $packages)"
    packages=$(missing)
fi

python=$(find_python)
if [ -z "$python" ]; then
    problem python "$(python3 -I -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2> /dev/null)"
fi
# shellcheck disable=SC2086
[ -z "$packages" ] || problem programs "$(echo $packages)"
[ -n "$kernel_wireguard" ] || [ -c /dev/net/tun ] || problem tun ""

exec "$python" -I -c "$code" "${kernel_wireguard:+kernel}"
