#!/bin/sh
# The network of a whole machine: one stock kernel with its virtio-net driver under kiln, under QEMU with slirp and under
# QEMU with passt, each with its own defaults (MTU 1500, 1500 and 65520), in the lab. The card's interrupts, as the guest
# counts them, are exact.
#
#   bench/net-vm.sh              medians of ROUNDS=3 boots of each; see bench/lab.sh
#
# The guest speaks to a server in a network namespace of the lab: its host's own addresses are nobody's business.
# Needs what `./x test` installs, and passt, iproute2.
set -eu
cd "$(dirname "$0")/.."
. ./bench/lab.sh
compile bench/net/main.rs net

skeleton "$guest" proc
modules "$guest" virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net
cp "$work/net" "$guest/"
guest_init <<'INIT'
echo cubic > /proc/sys/net/ipv4/tcp_congestion_control
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 mtu "$mtu" up
ip route add default via 10.0.2.2
interrupts() { awk '/virtio[0-9]*-(in|out)put/ { sum += $2 } END { print "irqs=" sum }' /proc/interrupts; }
echo "@ start $(interrupts)"
for test in 'up 1 3000' 'down 1 3000' 'up 8 3000' 'down 8 3000' 'rr 1 3000' 'crr 16 3000'; do
    row=$(/net load ${test%% *} 198.51.100.2 ${test#* } 2>&1 | tail -n 1)
    echo "@ $(echo $test | cut -d' ' -f1,2 | tr -d ' ') $row $(interrupts)"
done
poweroff -f
INIT
pack "$guest" | gzip > "$work/initrd"

# The shell has an `ip` of its own, without namespaces.
furnish_lab veth <<'BENCH'
/usr/bin/ip link set lo up
/usr/bin/ip netns add far
/usr/bin/ip link add near type veth peer name far
/usr/bin/ip link set far netns far
/usr/bin/ip addr add 198.51.100.1/24 dev near; /usr/bin/ip link set near up; /usr/bin/ip route add default via 198.51.100.2
/usr/bin/ip -n far addr add 198.51.100.2/24 dev far; /usr/bin/ip -n far link set far up; /usr/bin/ip -n far link set lo up
/usr/bin/ip netns exec far /net serve 198.51.100.2 > /tmp/served &
until grep -q ready /tmp/served; do sleep 0.1; done
qemu() { qemu-system-x86_64 -accel kvm -cpu host -M q35 -m 256 -nodefaults -display none -serial stdio -no-reboot \
    -kernel /vmlinuz -initrd /initrd -device virtio-net-pci,netdev=n,romfile= "$@"; }
case $peer in
kiln) /kiln -q run -accel kvm -no-reboot -mem 256 -kernel /vmlinuz -initrd /initrd -cmdline "$line mtu=1500" ;;
qemu-slirp) qemu -append "$line mtu=1500" -netdev user,id=n ;;
qemu-passt)
    passt --foreground --one-off --quiet --ipv4-only --socket /tmp/passt --interface near --address 10.0.2.15 --netmask 24 --gateway 10.0.2.2 > /tmp/passt.log 2>&1 &
    n=0; until [ -S /tmp/passt ] || [ $n -gt 200 ]; do sleep 0.1; n=$((n + 1)); done
    qemu -append "$line mtu=65520" -netdev stream,id=n,server=off,addr.type=unix,addr.path=/tmp/passt ;;
esac < /dev/null 2>&1 | while read -r words; do
    case $words in
    *'@ '*) echo "row $peer ${words#*@ } exits=$(exits)" | tr -d '\r' ;;
    *) echo "$words" ;;
    esac
done
BENCH
cp "$work/net" "$lab/"
programs "$lab" "$(command -v passt)" "$(command -v ip)"
cp -L "$(command -v passt).avx2" "$lab/usr/bin/" 2> /dev/null || true

rounds 3 'crr16 rate=' kiln qemu-slirp qemu-passt
"$work/net" machines "$rows"
