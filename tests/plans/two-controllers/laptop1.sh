# vpn on laptop1
ip link add dev vpn type wireguard || wireguard-go vpn
ip -6 route add unreachable fdeb:f20c::/40 metric 2147483647 proto 87
nft -f - <<'END'
add table inet warren-vpn
delete table inet warren-vpn
add table inet warren-vpn
add chain inet warren-vpn input { type filter hook input priority 0; policy accept; }
add chain inet warren-vpn forward { type filter hook forward priority 0; policy accept; }
add rule inet warren-vpn forward iifname "vpn" drop
add rule inet warren-vpn forward oifname "vpn" drop
END
wg set vpn private-key /var/lib/warren/vpn/private.key  # whose public key is vNaPfz1sAJfQn9q0BLpJ6dt9EcQte0Zp17SX7cEKuZQ=
ip link set dev vpn mtu 1420
ip -6 address add fdeb:f20c:7f:4000:bcd6:8f7f:3d6c:97/56 dev vpn nodad
ip -6 address add fdeb:f20c:c6:7e00:bcd6:8f7f:3d6c:97/56 dev vpn nodad
wg set vpn peer f0CbGzIRw3SZyWGfQq4NKr3uZS69wa8FAta1OaZwQwY= endpoint vpn1.example.com:51820 persistent-keepalive 25 allowed-ips fdeb:f20c:7f:4000::/56,fdeb:f20c:7f:4000::1/128  # server1
wg set vpn peer xn6D/MaygHeKOhRSKq6lBWNk7/in7UrkCtV6shpjBZ4= endpoint vpn2.example.com:51820 persistent-keepalive 25 allowed-ips fdeb:f20c:c6:7e00::/56,fdeb:f20c:c6:7e00::1/128  # server2
ip link set dev vpn up
sed -i '/^# BEGIN warren vpn /,/^# END warren vpn$/d' /etc/hosts
cat >> /etc/hosts <<'END'
# BEGIN warren vpn (kept by warren: edits between these two lines are lost)
fdeb:f20c:7f:4000:bcd6:8f7f:3d6c:97 laptop1.vpn
fdeb:f20c:c6:7e00:6be:7dd9:c0d6:d380 laptop2.vpn
fdeb:f20c:7f:4000:6fba:8f10:3226:b715 laptop3.vpn
fdeb:f20c:7f:4000::1 server1.vpn
fdeb:f20c:c6:7e00::1 server2.vpn
# END warren vpn
END
