# wireguard on server1
ip link add dev wireguard type wireguard || wireguard-go wireguard
ip -6 route add unreachable fd28:387a::/40 metric 2147483647 proto 87
nft -f - <<'END'
add table inet warren-wireguard
delete table inet warren-wireguard
add table inet warren-wireguard
add chain inet warren-wireguard input { type filter hook input priority 0; policy accept; }
add rule inet warren-wireguard input udp dport 51820 accept
add chain inet warren-wireguard forward { type filter hook forward priority 0; policy accept; }
add rule inet warren-wireguard forward iifname "wireguard" oifname "wireguard" accept
add rule inet warren-wireguard forward iifname "wireguard" drop
add rule inet warren-wireguard forward oifname "wireguard" drop
END
sysctl -w net.ipv6.conf.wireguard.force_forwarding=1 || sysctl -w net.ipv6.conf.all.forwarding=1  # the latter before Linux 6.17
wg set wireguard private-key /var/lib/warren/wireguard/private.key  # whose public key is f0CbGzIRw3SZyWGfQq4NKr3uZS69wa8FAta1OaZwQwY=
wg set wireguard listen-port 51820
ip link set dev wireguard mtu 1420
ip -6 address add fd28:387a:7f:4000::1/40 dev wireguard nodad
wg set wireguard peer vNaPfz1sAJfQn9q0BLpJ6dt9EcQte0Zp17SX7cEKuZQ= persistent-keepalive 25 allowed-ips fd28:387a:7f:4000:bcd6:8f7f::/96  # laptop1
ip link set dev wireguard up
sed -i '/^# BEGIN warren wireguard /,/^# END warren wireguard$/d' /etc/hosts
cat >> /etc/hosts <<'END'
# BEGIN warren wireguard (kept by warren: edits between these two lines are lost)
fd28:387a:7f:4000:bcd6:8f7f:3d6c:97 laptop1.wireguard
fd28:387a:7f:4000::1 server1.wireguard
# END warren wireguard
END
