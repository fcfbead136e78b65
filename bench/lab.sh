#!/bin/bash
# lab.sh CONTROLLERS PEERS: the mesh of bench/lab.py by bare commands. Prints the name of each part and the time at its end.
# Leaves its processes to the pid namespace that it must run in.
set -eu
controllers=$1 peers=$2; all=$((controllers + peers))
folder=$(mktemp -d -p /run); cd $folder
part() { echo "$1 $EPOCHREALTIME"; }
part start
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
for i in $(seq $all); do
  unshare --net --mount sh -c \
    "mount -t tmpfs none /run/wireguard; ip link set lo up; touch $folder/ready$i; exec sleep 1000" &
  pid[i]=$!
done
for i in $(seq $all); do until [ -e ready$i ]; do :; done; done
part namespaces
for i in $(seq $all); do
  echo "link add m$i type veth peer name eth0 netns ${pid[i]}"
  echo "link set m$i addrgenmode none up"
  echo "addr add fe80::1/64 dev m$i nodad"
  echo "route add 2001:db8::$i dev m$i"
done | ip -batch -
for i in $(seq $all); do
  printf '%s\n' "link set eth0 addrgenmode none up" "addr add fe80::2/64 dev eth0 nodad" \
    "addr add 2001:db8::$i dev eth0 nodad" "route add default via fe80::1 dev eth0" |
    nsenter -t ${pid[i]} -n ip -batch - &
  jobs[i]=$!
done
wait "${jobs[@]}"
part cables
for i in $(seq $all); do private[i]=$(wg genkey); public[i]=$(wg pubkey <<<"${private[i]}"); done
part keys
suffix() { echo "0:0:$1:1"; }
for i in $(seq $all); do
  {
    echo "[Interface]"; echo "PrivateKey = ${private[i]}"
    [ $i -gt $controllers ] || echo "ListenPort = 51820"
    for j in $(seq $all); do
      [ $j != $i ] && { [ $i -le $controllers ] || [ $j -le $controllers ]; } || continue
      echo "[Peer]"; echo "PublicKey = ${public[j]}"
      if [ $j -le $controllers ]; then
        echo "AllowedIPs = fd00:0:0:${j}00::/56"; echo "Endpoint = [2001:db8::$j]:51820"
        [ $i -lt $j ] && [ $i -le $controllers ] || echo "PersistentKeepalive = 25"
      else
        for c in $(seq $controllers); do echo "AllowedIPs = fd00:0:0:${c}00:$(suffix $j)/128"; done
      fi
    done
  } > $i.conf
  WG_PROCESS_FOREGROUND=1 WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1 LOG_LEVEL=silent \
    nsenter -t ${pid[i]} -n -m wireguard-go -f vpn > /dev/null 2>&1 &
  go[i]=$!
done
for i in $(seq $all); do
  {
    if [ $i -le $controllers ]; then echo "addr add fd00:0:0:${i}00::1/40 dev vpn nodad"; else
      for c in $(seq $controllers); do echo "addr add fd00:0:0:${c}00:$(suffix $i)/56 dev vpn nodad"; done
    fi
    echo "link set vpn up"
  } > $i.batch
  nsenter -t ${pid[i]} -n -m sh -c "
    [ $i -gt $controllers ] || echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
    until [ -S /run/wireguard/vpn.sock ]; do :; done; wg setconf vpn $folder/$i.conf; ip -batch $folder/$i.batch" &
  jobs[i]=$!
  [ $i -gt $controllers ] || wait ${jobs[i]}
done
wait "${jobs[@]}"
part wireguard
for i in $(seq $all); do
  addresses=
  for j in $(seq $all); do
    if [ $j = $i ]; then continue
    elif [ $j -le $controllers ]; then addresses="$addresses fd00:0:0:${j}00::1"
    else addresses="$addresses fd00:0:0:100:$(suffix $j)"; fi
  done
  nsenter -t ${pid[i]} -n sh -c "for a in $addresses; do until ping -q -c 1 -W 1 \$a > /dev/null; do :; done; done" &
  jobs[i]=$!
done
wait "${jobs[@]}"
part pings
kill "${go[@]}" "${pid[@]}"
wait 2> /dev/null || true
part down
cd /; rm -r $folder
