# shellcheck shell=sh disable=SC2154 # the lab's
# One command line for each monitor; what the lab of bench/vmm.sh does.
watch() { /watch run "$peer" "$MEM" 90 -- "$@"; }
qemu() { watch /usr/bin/qemu-system-x86_64 -accel kvm -cpu host -m "$MEM" -smp 1 -nodefaults -display none -serial stdio \
    -no-reboot -initrd /initrd -append "$line" "$@"; }
case $peer in
kiln-vmlinux) watch /kiln -q run -accel kvm -no-reboot -mem "$MEM" -kernel /vmlinux -initrd /initrd -cmdline "$line" ;;
kiln-bzimage) watch /kiln -q run -accel kvm -no-reboot -mem "$MEM" -kernel /vmlinuz -initrd /initrd -cmdline "$line" ;;
# All devices that a machine can have at once: card, entropy and balloon are there anyhow.
kiln-all) mkdir /tmp/share; watch /kiln -q run -accel kvm -no-reboot -mem "$MEM" -kernel /vmlinux -initrd /initrd -cmdline "$line" \
    -disk /tmp/disk,size=64M -data seed -virtiofs /tmp/share -vsock-ports 1024 ;;
# The same without the share and vsock, which are other programs' there.
qemu-all) head -c 64M /dev/zero > /tmp/disk; qemu -M microvm,rtc=on,pit=off,pic=off -kernel /vmlinux -netdev user,id=n -device virtio-net-device,netdev=n \
    -device virtio-rng-device -device virtio-balloon-device -drive if=none,id=a,format=raw,file=/tmp/disk -device virtio-blk-device,drive=a \
    -drive if=none,id=b,format=raw,readonly=on,file=/initrd -device virtio-blk-device,drive=b ;;
qemu-microvm) qemu -M microvm,rtc=on,pit=off,pic=off -kernel /vmlinux ;;
qemu-q35) qemu -M q35 -kernel /vmlinuz ;;
esac
