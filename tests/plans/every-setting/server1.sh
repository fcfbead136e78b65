# a-name-too-long-for-linux on server1
ip link add dev vpn.lab type wireguard || wireguard-go vpn.lab
ip -6 route add unreachable fd4e:2138::/40 metric 2147483647 proto 87
nft -f - <<'END'
add table inet warren-a-name-too-long-for-linux
delete table inet warren-a-name-too-long-for-linux
add table inet warren-a-name-too-long-for-linux
add chain inet warren-a-name-too-long-for-linux input { type filter hook input priority 0; policy accept; }
add rule inet warren-a-name-too-long-for-linux input udp dport 51900 accept
add chain inet warren-a-name-too-long-for-linux forward { type filter hook forward priority 0; policy accept; }
add rule inet warren-a-name-too-long-for-linux forward iifname "vpn.lab" oifname "vpn.lab" accept
add rule inet warren-a-name-too-long-for-linux forward iifname "vpn.lab" drop
add rule inet warren-a-name-too-long-for-linux forward oifname "vpn.lab" drop
END
sysctl -w net.ipv6.conf.vpn/lab.force_forwarding=1 || sysctl -w net.ipv6.conf.all.forwarding=1  # the latter before Linux 6.17
wg set vpn.lab private-key /var/lib/warren/a-name-too-long-for-linux/private.key  # whose public key is f0CbGzIRw3SZyWGfQq4NKr3uZS69wa8FAta1OaZwQwY=
wg set vpn.lab listen-port 51900
ip link set dev vpn.lab mtu 1400
ip -6 address add fd4e:2138:7f:4000::1/40 dev vpn.lab nodad
wg set vpn.lab peer xn6D/MaygHeKOhRSKq6lBWNk7/in7UrkCtV6shpjBZ4= endpoint 192.0.2.2:51901 persistent-keepalive 25 allowed-ips 2001:db8:5::/64,fd4e:2138:c6:7e00::/56  # server2
wg set vpn.lab peer vNaPfz1sAJfQn9q0BLpJ6dt9EcQte0Zp17SX7cEKuZQ= persistent-keepalive 25 allowed-ips fd4e:2138:7f:4000:bcd6:8f7f::/96,fd4e:2138:c6:7e00:bcd6:8f7f::/96  # laptop1
ip link set dev vpn.lab up
ip -6 route add 2001:db8:5::/64 dev vpn.lab metric 4096 proto 87
sed -i '/^# BEGIN warren a-name-too-long-for-linux /,/^# END warren a-name-too-long-for-linux$/d' /etc/hosts
cat >> /etc/hosts <<'END'
# BEGIN warren a-name-too-long-for-linux (kept by warren: edits between these two lines are lost)
fd4e:2138:c6:7e00:bcd6:8f7f:3d6c:97 laptop1.mesh.example.com
fd4e:2138:7f:4000::1 server1.mesh.example.com
fd4e:2138:c6:7e00::1 server2.mesh.example.com
# END warren a-name-too-long-for-linux
END
