# wireguard on server2
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
wg set wireguard private-key /var/lib/warren/wireguard/private.key  # whose public key is xn6D/MaygHeKOhRSKq6lBWNk7/in7UrkCtV6shpjBZ4=
wg set wireguard listen-port 51820
ip link set dev wireguard mtu 1420
ip -6 address add fd28:387a:c6:7e00::1/40 dev wireguard nodad
wg set wireguard peer rAAkUE/i+rad3fQ6lwMQOsugzcbaV0pGbJOZ0y+o63I= endpoint gw.example.com:51820 persistent-keepalive off allowed-ips fd28:387a:ac::/56  # gw26
wg set wireguard peer vNaPfz1sAJfQn9q0BLpJ6dt9EcQte0Zp17SX7cEKuZQ= persistent-keepalive 25 allowed-ips fd28:387a:ac:0:8750:a09b::/96,fd28:387a:c6:7e00:8750:a09b::/96  # laptop1
wg set wireguard peer Br592cDW04AniC6vgyVogqnGn1LHiRRHoo4hno0TcZw= persistent-keepalive 25 allowed-ips fd28:387a:ac:0:8750:a09c::/96,fd28:387a:c6:7e00:8750:a09c::/96  # laptop2
ip link set dev wireguard up
sleep 1  # gw26 may speak first: two first messages that cross cost 5 s
wg set wireguard peer rAAkUE/i+rad3fQ6lwMQOsugzcbaV0pGbJOZ0y+o63I= persistent-keepalive 25  # gw26
sed -i '/^# BEGIN warren wireguard /,/^# END warren wireguard$/d' /etc/hosts
cat >> /etc/hosts <<'END'
# BEGIN warren wireguard (kept by warren: edits between these two lines are lost)
fd28:387a:ac::1 gw26.wireguard
fd28:387a:ac:0:8750:a09b:0:1 laptop1.wireguard
fd28:387a:ac:0:8750:a09c:0:2 laptop2.wireguard
fd28:387a:c6:7e00::1 server2.wireguard
# END warren wireguard
END
