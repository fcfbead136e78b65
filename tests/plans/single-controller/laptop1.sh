# wireguard on laptop1
ip link add dev wireguard type wireguard || wireguard-go wireguard
ip -6 route add unreachable fd28:387a::/40 metric 2147483647 proto 87
nft -f - <<'END'
add table inet warren-wireguard
delete table inet warren-wireguard
add table inet warren-wireguard
add chain inet warren-wireguard input { type filter hook input priority 0; policy accept; }
add chain inet warren-wireguard forward { type filter hook forward priority 0; policy accept; }
add rule inet warren-wireguard forward iifname "wireguard" drop
add rule inet warren-wireguard forward oifname "wireguard" drop
END
wg set wireguard private-key /var/lib/warren/wireguard/private.key  # whose public key is vNaPfz1sAJfQn9q0BLpJ6dt9EcQte0Zp17SX7cEKuZQ=
ip link set dev wireguard mtu 1420
ip -6 address add fd28:387a:7f:4000:bcd6:8f7f:3d6c:97/56 dev wireguard nodad
wg set wireguard peer f0CbGzIRw3SZyWGfQq4NKr3uZS69wa8FAta1OaZwQwY= endpoint vpn.example.com:51820 persistent-keepalive 25 allowed-ips fd28:387a:7f:4000::/56,fd28:387a:7f:4000::1/128  # server1
ip link set dev wireguard up
sed -i '/^# BEGIN warren wireguard /,/^# END warren wireguard$/d' /etc/hosts
cat >> /etc/hosts <<'END'
# BEGIN warren wireguard (kept by warren: edits between these two lines are lost)
fd28:387a:7f:4000:bcd6:8f7f:3d6c:97 laptop1.wireguard
fd28:387a:7f:4000::1 server1.wireguard
# END warren wireguard
END
