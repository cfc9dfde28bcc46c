#!/bin/sh
# A shared folder of a whole machine: one stock kernel with its own virtiofs under kiln, and under QEMU with Debian's virtiofsd
# (with its cache, which does not see what the host changes for a second, and without), in the lab. The folder is on a tmpfs.
# KVM's exits are exact.
#
#   bench/shares.sh              medians of ROUNDS=5 boots of each; see bench/lab.sh
#
# Needs what `./x test` installs, and qemu-system-common.
set -eu
cd "$(dirname "$0")/.."
. ./bench/lab.sh
compile bench/shares.rs shares

skeleton "$guest" proc mnt
modules "$guest" virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci fuse virtiofs
cp "$work/shares" "$guest/"
guest_init <<'INIT'
mount -t virtiofs share /mnt && /shares load /mnt
poweroff -f
INIT
pack "$guest" | gzip > "$work/initrd"

# shellcheck disable=SC2119 # no more modules
furnish_lab <<'BENCH'
mkdir share
qemu() {
    virtiofsd --socket-path=/tmp/fs -f -o sandbox=chroot -o source=/tmp/share -o "cache=$1" > /tmp/virtiofsd.log 2>&1 &
    n=0; until [ -S /tmp/fs ] || [ $n -gt 200 ]; do sleep 0.1; n=$((n + 1)); done
    cat /tmp/virtiofsd.log
    qemu-system-x86_64 -accel kvm -cpu host -M q35,memory-backend=memory -object memory-backend-memfd,id=memory,size=256M,share=on \
        -m 256 -nodefaults -display none -serial stdio -no-reboot -kernel /vmlinuz -initrd /initrd -append "$line" \
        -chardev socket,id=fs,path=/tmp/fs -device vhost-user-fs-pci,chardev=fs,tag=share
}
case $peer in
kiln) /kiln -q run -accel kvm -no-reboot -mem 256 -kernel /vmlinuz -initrd /initrd -cmdline "$line" -virtiofs /tmp/share,tag=share ;;
kiln-*) /kiln -q run -accel kvm -no-reboot -mem 256 -kernel /vmlinuz -initrd /initrd -cmdline "$line" -virtiofs "/tmp/share,tag=share,cache=${peer#kiln-}" ;;
virtiofsd-*) qemu "${peer#virtiofsd-}" ;;
esac < /dev/null 2>&1 | while read -r words; do
    case $words in
    *'@ '*)
        # User, nice, system, iowait (no work), irq, softirq, steal, and of these what guests used.
        read -r cpu user nice system idle iowait irq softirq steal guest rest < /proc/stat
        echo "row $peer ${words#*@ } exits=$(exits) cpu=$((user + nice + system + irq + softirq - guest))" | tr -d '\r' ;;
    *) echo "$words" ;;
    esac
done
BENCH
programs "$lab" /usr/lib/qemu/virtiofsd

rounds 5 again kiln virtiofsd-none virtiofsd-auto
"$work/shares" table "$rows"
