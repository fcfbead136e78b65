# a-name-too-long-for-linux on laptop1
ip link add dev wg0 type wireguard || wireguard-go wg0
ip -6 route add unreachable fd4e:2138::/40 metric 2147483647 proto 87
nft -f - <<'END'
add table inet warren-a-name-too-long-for-linux
delete table inet warren-a-name-too-long-for-linux
add table inet warren-a-name-too-long-for-linux
add chain inet warren-a-name-too-long-for-linux input { type filter hook input priority 0; policy accept; }
add chain inet warren-a-name-too-long-for-linux forward { type filter hook forward priority 0; policy accept; }
add rule inet warren-a-name-too-long-for-linux forward iifname "wg0" drop
add rule inet warren-a-name-too-long-for-linux forward oifname "wg0" drop
END
wg set wg0 private-key /var/lib/warren/a-name-too-long-for-linux/private.key  # whose public key is vNaPfz1sAJfQn9q0BLpJ6dt9EcQte0Zp17SX7cEKuZQ=
ip link set dev wg0 mtu 1300
ip -6 address add fd4e:2138:7f:4000:bcd6:8f7f:3d6c:97/56 dev wg0 nodad
ip -6 address add fd4e:2138:c6:7e00:bcd6:8f7f:3d6c:97/56 dev wg0 nodad
wg set wg0 peer f0CbGzIRw3SZyWGfQq4NKr3uZS69wa8FAta1OaZwQwY= endpoint vpn1.example.com:4500 persistent-keepalive 25 allowed-ips fd4e:2138:7f:4000::/56,fd4e:2138:7f:4000::1/128  # server1
wg set wg0 peer xn6D/MaygHeKOhRSKq6lBWNk7/in7UrkCtV6shpjBZ4= endpoint 192.0.2.2:51901 persistent-keepalive 25 allowed-ips 2001:db8:5::/64,fd4e:2138:c6:7e00::/56,fd4e:2138:c6:7e00::1/128  # server2
ip link set dev wg0 up
ip -6 route add 2001:db8:5::/64 dev wg0 metric 4096 proto 87
sed -i '/^# BEGIN warren a-name-too-long-for-linux /,/^# END warren a-name-too-long-for-linux$/d' /etc/hosts
cat >> /etc/hosts <<'END'
# BEGIN warren a-name-too-long-for-linux (kept by warren: edits between these two lines are lost)
fd4e:2138:c6:7e00:bcd6:8f7f:3d6c:97 laptop1.mesh.example.com
fd4e:2138:7f:4000::1 server1.mesh.example.com
fd4e:2138:c6:7e00::1 server2.mesh.example.com
# END warren a-name-too-long-for-linux
END
