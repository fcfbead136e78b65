# home on laptop
ip link add dev home type wireguard || wireguard-go home
ip -6 route add unreachable fd4e:a140::/40 metric 2147483647 proto 87
nft -f - <<'END'
add table inet warren-home
delete table inet warren-home
add table inet warren-home
add chain inet warren-home input { type filter hook input priority 0; policy accept; }
add chain inet warren-home forward { type filter hook forward priority 0; policy accept; }
add rule inet warren-home forward iifname "home" drop
add rule inet warren-home forward oifname "home" drop
END
wg set home private-key /var/lib/warren/home/private.key  # whose public key is XuwNxBmqgze/cl8Cb9qceMHLHGQu6v+dbhES83eD6UI=
ip link set dev home mtu 1420
ip -6 address add fd4e:a140:8:d300:5eec:dc4:19aa:8337/56 dev home nodad
wg set home peer CNM1A+4n1MEwVdDO/sXnML5O8uQc1s/OQ0k27B58nUs= endpoint hub.example.com:51820 persistent-keepalive 25 allowed-ips fd4e:a140:8:d300::/56,fd4e:a140:8:d300::1/128  # hub
ip link set dev home up
sed -i '/^# BEGIN warren home /,/^# END warren home$/d' /etc/hosts
cat >> /etc/hosts <<'END'
# BEGIN warren home (kept by warren: edits between these two lines are lost)
fd4e:a140:8:d300:17f2:9b07:3143:d8cd bridge.home
fd4e:a140:8:d300::1 hub.home
fd4e:a140:8:d300:5eec:dc4:19aa:8337 laptop.home
# END warren home
END

# work on laptop
ip link add dev work type wireguard || wireguard-go work
ip -6 route add unreachable fd00:e13e::/40 metric 2147483647 proto 87
nft -f - <<'END'
add table inet warren-work
delete table inet warren-work
add table inet warren-work
add chain inet warren-work input { type filter hook input priority 0; policy accept; }
add chain inet warren-work forward { type filter hook forward priority 0; policy accept; }
add rule inet warren-work forward iifname "work" drop
add rule inet warren-work forward oifname "work" drop
END
wg set work private-key /var/lib/warren/work/private.key  # whose public key is XuwNxBmqgze/cl8Cb9qceMHLHGQu6v+dbhES83eD6UI=
ip link set dev work mtu 1420
ip -6 address add fd00:e13e:8:d300:5eec:dc4:19aa:8337/56 dev work nodad
ip -6 address add fd00:e13e:17:f200:5eec:dc4:19aa:8337/56 dev work nodad
wg set work peer F/KbBzFD2M2Xtbvkkr3v/sHF/uVcwf4hEsi5M1+LYSE= endpoint 192.0.2.17:4500 persistent-keepalive 25 allowed-ips fd00:e13e:17:f200::/56,fd00:e13e:17:f200::1/128  # bridge
wg set work peer CNM1A+4n1MEwVdDO/sXnML5O8uQc1s/OQ0k27B58nUs= endpoint hub.example.com:51821 persistent-keepalive 25 allowed-ips fd00:e13e:8:d300::/56,fd00:e13e:8:d300::1/128  # hub
ip link set dev work up
sed -i '/^# BEGIN warren work /,/^# END warren work$/d' /etc/hosts
cat >> /etc/hosts <<'END'
# BEGIN warren work (kept by warren: edits between these two lines are lost)
fd00:e13e:17:f200::1 bridge.work
fd00:e13e:8:d300::1 hub.work
fd00:e13e:17:f200:5eec:dc4:19aa:8337 laptop.work
# END warren work
END
