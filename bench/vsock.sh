#!/bin/sh
# Sockets between host and guest: one stock kernel with its own vsock driver under kiln, whose device is a thread of its
# process with a Unix socket for each port; under QEMU with vhost-user, whose device is another process with such sockets
# (the vhost-device project's), and under QEMU with vhost-vsock, whose device is in the host's kernel. In the lab: a
# machine of QEMU's software CPU in which KVM is real. Times there are 10 to 30 times those of hardware, so only their
# ratios count, and only on a quiet machine.
#
#   bench/vsock.sh               medians of ROUNDS=5 boots of each
#   ONLY='…' ROWS=FILE           which of them, and where the measured rows go
#   KILN=FILE                    a kiln that is built already
#
# Needs what `./x test` installs, and vhost-device-vsock (cargo install vhost-device-vsock).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rows=${ROWS:-$work/rows}

cd "$here/.."
vhost_user=$(command -v vhost-device-vsock) || { echo "$0: vhost-device-vsock is missing (cargo install vhost-device-vsock)" >&2; exit 1; }
[ -n "${KILN:-}" ] || cargo build -q --release --locked -p kiln
triple=$(rustc -vV | sed -n 's/^host: //p')
rustc --edition 2024 -O -C target-feature=+crt-static -C strip=symbols bench/net/main.rs -o "$work/net"

# The kernel, for both levels.
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -n 1)
(cd "$work" && apt-get download -q "$package" > /dev/null 2>&1 && dpkg-deb -x ./*.deb kernel)
vmlinuz=$(find "$work/kernel/boot" -name 'vmlinuz-*')
copy() {
    to=$1
    shift
    mkdir -p "$to"
    for module; do cp "$(find "$work/kernel" -name "$module.ko")" "$to"; done
}

# The measured guest.
card='virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport'
mkdir -p "$work/guest/bin" "$work/guest/proc"
# shellcheck disable=SC2086 # names of modules
copy "$work/guest/modules" $card
cp /bin/busybox "$work/guest/bin/"
cp "$work/net" "$work/guest/"
cat > "$work/guest/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
for module in $card; do insmod /modules/\$module.ko; done
exec /net vsock-serve
INIT
chmod 755 "$work/guest/init"
(cd "$work/guest" && find . | cpio -o -H newc --quiet | gzip) > "$work/initrd"

# The lab.
lab=$work/lab
mkdir -p "$lab/bin" "$lab/proc" "$lab/sys" "$lab/dev" "$lab/tmp" "$lab/usr/bin" "$lab/usr/share"
host='irqbypass kvm kvm-amd vhost_iotlb vhost vsock vmw_vsock_virtio_transport_common vhost_vsock'
# shellcheck disable=SC2086 # names of modules
copy "$lab/modules" $host
cp /bin/busybox "$lab/bin/"
cp "${KILN:-target/$triple/release/kiln}" "$lab/kiln"
cp "$work/net" "$work/initrd" "$lab/"
cp "$vmlinuz" "$lab/vmlinuz"
for path in "$(command -v qemu-system-x86_64)" "$vhost_user"; do
    ldd "$path" | grep -o '/[^ ]*' | while read -r file; do mkdir -p "$lab${file%/*}"; cp -Ln "$file" "$lab$file"; done
    cp -L "$path" "$lab/usr/bin/"
done
mkdir -p "$lab/usr/share/qemu" "$lab/usr/share/seabios"
cp -L /usr/share/qemu/*.rom /usr/share/qemu/*.bin "$lab/usr/share/qemu/" 2> /dev/null || true
cp -L /usr/share/seabios/*.bin "$lab/usr/share/seabios/" 2> /dev/null || true
cat > "$lab/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export HOME=/tmp
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
mount -t debugfs debug /sys/kernel/debug
mkdir -p /dev/pts; mount -t devpts pts /dev/pts
for module in $host; do insmod /modules/\$module.ko; done
name=\$(sed 's/.*peer=\([a-z0-9-]*\).*/\1/' /proc/cmdline)
line='console=ttyS0 quiet panic=-1 reboot=t'
cd /tmp
qemu() { /usr/bin/qemu-system-x86_64 -accel kvm -cpu host -m 256 -nodefaults -display none -serial stdio -no-reboot \
    -kernel /vmlinuz -initrd /initrd -append "\$line" "\$@" < /dev/null > console 2>&1; }
case \$name in
kiln)
    place=unix:/tmp/state
    /kiln -q run -accel kvm -no-reboot -mem 256 -networking none -vsock-ports 1001,1002,1003 -state state \
        -kernel /vmlinuz -initrd /initrd -cmdline "\$line" < /dev/null > console 2>&1 & ;;
qemu-vhost)
    place=vsock:3
    qemu -M q35 -device vhost-vsock-pci,guest-cid=3 & ;;
qemu-vhost-user)
    place=named:/tmp/named
    /usr/bin/vhost-device-vsock --vm guest-cid=3,socket=/tmp/device,uds-path=/tmp/named > device.log 2>&1 &
    n=0; until [ -S device ] || [ \$n -gt 200 ]; do sleep 0.1; n=\$((n + 1)); done
    qemu -M q35,memory-backend=memory -object memory-backend-memfd,id=memory,size=256M,share=on \
        -chardev socket,id=v,path=device -device vhost-user-vsock-pci,chardev=v & ;;
esac
machine=\$!
tries=0
until grep -q serving console || [ \$tries -gt 600 ]; do sleep 0.1; tries=\$((tries + 1)); done
exits() { echo "exits=\$(cat /sys/kernel/debug/kvm/exits)"; }
echo "row \$name start \$(exits)"
for test in 'down 1' 'up 1' 'down 8' 'up 8' 'rr 1' 'crr 1' 'crr 16'; do
    set -- \$test
    measured=\$(/net vsock-load \$1 \$place \$2 4000 2>&1 | tail -n 1)
    echo "row \$name \$1\$2 \$measured \$(exits)"
done
grep -q serving console && [ -d /proc/\$machine ] || cat console device.log
echo "LAB: end"
poweroff -f
INIT
chmod 755 "$lab/init"
(cd "$lab" && find . | cpio -o -H newc --quiet) > "$work/lab.cpio"

: > "$rows"
round=0
while [ $round -lt "${ROUNDS:-5}" ]; do
    round=$((round + 1))
    for peer in ${ONLY:-kiln qemu-vhost-user qemu-vhost}; do
        # QEMU 7.2 now and then aborts on an assertion of its own while it emulates SVM: then once more.
        for try in 1 2 3; do
            timeout "${LIMIT:-300}" qemu-system-x86_64 -accel tcg,thread=multi -smp 2 -cpu EPYC,+svm,+npt -M q35 -m 2048 \
                -display none -nodefaults -serial stdio -no-reboot -kernel "$vmlinuz" -initrd "$work/lab.cpio" \
                -append "console=ttyS0 quiet panic=-1 no_timer_check peer=$peer" < /dev/null > "$work/console" 2>&1 || true
            if grep -aq 'LAB: end' "$work/console"; then break; fi
            echo "vsock.sh: $peer: the lab broke off (try $try)" >&2
        done
        tr -d '\r' < "$work/console" | grep -a '^row' | tee -a "$rows" >&2
        grep -aq '^row .*gbps' "$work/console" || cat "$work/console" >&2
    done
done
"$work/net" vsock "$rows"
