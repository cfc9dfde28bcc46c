#!/bin/sh
# Sockets between host and guest: one stock kernel with its own vsock driver under kiln, whose device is a thread of its
# process with a Unix socket for each port; under QEMU with vhost-user, whose device is another process with such sockets
# (the vhost-device project's), and under QEMU with vhost-vsock, whose device is in the host's kernel. In the lab.
#
#   bench/vsock.sh               medians of ROUNDS=5 boots of each; see bench/lab.sh
#
# Needs what `./x test` installs, and vhost-device-vsock (cargo install vhost-device-vsock).
set -eu
cd "$(dirname "$0")/.."
vhost_user=$(command -v vhost-device-vsock) || { echo "$0: vhost-device-vsock is missing (cargo install vhost-device-vsock)" >&2; exit 1; }
. ./bench/lab.sh
compile bench/net/main.rs net

skeleton "$guest" proc
modules "$guest" virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport
cp "$work/net" "$guest/"
echo 'exec /net vsock-serve' | guest_init
pack "$guest" | gzip > "$work/initrd"

furnish_lab vhost_iotlb vhost vsock vmw_vsock_virtio_transport_common vhost_vsock <<'BENCH'
qemu() { qemu-system-x86_64 -accel kvm -cpu host -m 256 -nodefaults -display none -serial stdio -no-reboot \
    -kernel /vmlinuz -initrd /initrd -append "$line" "$@" < /dev/null > console 2>&1; }
case $peer in
kiln)
    place=unix:/tmp/state
    /kiln -q run -accel kvm -no-reboot -mem 256 -networking none -vsock-ports 1001,1002,1003 -state state \
        -kernel /vmlinuz -initrd /initrd -cmdline "$line" < /dev/null > console 2>&1 & ;;
qemu-vhost)
    place=vsock:3
    qemu -M q35 -device vhost-vsock-pci,guest-cid=3 & ;;
qemu-vhost-user)
    place=named:/tmp/named
    vhost-device-vsock --vm guest-cid=3,socket=/tmp/device,uds-path=/tmp/named > device.log 2>&1 &
    n=0; until [ -S device ] || [ $n -gt 200 ]; do sleep 0.1; n=$((n + 1)); done
    qemu -M q35,memory-backend=memory -object memory-backend-memfd,id=memory,size=256M,share=on \
        -chardev socket,id=v,path=device -device vhost-user-vsock-pci,chardev=v & ;;
esac
machine=$!
tries=0
until grep -q serving console || [ $tries -gt 600 ]; do sleep 0.1; tries=$((tries + 1)); done
echo "row $peer start exits=$(exits)"
for test in 'down 1' 'up 1' 'down 8' 'up 8' 'rr 1' 'crr 1' 'crr 16'; do
    set -- $test
    measured=$(/net vsock-load $1 $place $2 4000 2>&1 | tail -n 1)
    echo "row $peer $1$2 $measured exits=$(exits)"
done
grep -q serving console && [ -d /proc/$machine ] || cat console device.log
BENCH
cp "$work/net" "$lab/"
programs "$lab" "$vhost_user"

rounds 5 'crr16 rate=' kiln qemu-vhost-user qemu-vhost
"$work/net" vsock "$rows"
