# shellcheck shell=sh
# One command line for each monitor; sourced by the lab's init, which is told by `peer=` whose turn it is.
cmdline='console=ttyS0 quiet panic=-1 reboot=t'
watch() { name=$1; shift; /watch run "$name" "$MEM" 90 -- "$@"; }
qemu() { watch "$name" /usr/bin/qemu-system-x86_64 -accel kvm -cpu host -m "$MEM" -smp 1 -nodefaults -display none -serial stdio \
    -no-reboot -initrd /initrd -append "$cmdline" "$@"; }
name=$(sed 's/.*peer=\([a-z0-9-]*\).*/\1/' /proc/cmdline)
case $name in
kiln-vmlinux) watch "$name" /kiln -q run -accel kvm -no-reboot -mem "$MEM" -kernel /vmlinux -initrd /initrd -cmdline "$cmdline" ;;
kiln-bzimage) watch "$name" /kiln -q run -accel kvm -no-reboot -mem "$MEM" -kernel /vmlinuz -initrd /initrd -cmdline "$cmdline" ;;
# All devices that a machine can have at once: card, entropy and balloon are there anyhow.
kiln-all) mkdir /tmp/share; watch "$name" /kiln -q run -accel kvm -no-reboot -mem "$MEM" -kernel /vmlinux -initrd /initrd -cmdline "$cmdline" \
    -disk /tmp/disk,size=64M -data seed -virtiofs /tmp/share -vsock-ports 1024 ;;
# The same without the share and vsock, which are other programs' there.
qemu-all) head -c 64M /dev/zero > /tmp/disk; qemu -M microvm,rtc=on,pit=off,pic=off -kernel /vmlinux -netdev user,id=n -device virtio-net-device,netdev=n \
    -device virtio-rng-device -device virtio-balloon-device -drive if=none,id=a,format=raw,file=/tmp/disk -device virtio-blk-device,drive=a \
    -drive if=none,id=b,format=raw,readonly=on,file=/initrd -device virtio-blk-device,drive=b ;;
qemu-microvm) qemu -M microvm,rtc=on,pit=off,pic=off -kernel /vmlinux ;;
qemu-q35) qemu -M q35 -kernel /vmlinuz ;;
esac
