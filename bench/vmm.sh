#!/bin/sh
# Boots one stock kernel under kiln and under what a user would pick instead, side by side, in the lab (see
# tests/harness/lab.rs): a machine of QEMU's software CPU in which KVM is real. Times there are 10 to 30 times those of
# hardware, so only their ratios count; KVM's counters are exact.
#
#   bench/vmm.sh [PEERS_DIR]     PEERS_DIR may hold static binaries: firecracker, cloud-hypervisor
#   ROUNDS=5 MEM=128 ONLY='…'    boots of each, the guest's memory in MiB, and which peers
#
# Needs what `./x test` installs, and lz4.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
peers=${1:-}
ROUNDS=${ROUNDS:-5} MEM=${MEM:-128}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$here/.."
cargo build --release --locked -p kiln
triple=$(rustc -vV | sed -n 's/^host: //p')
rustc --edition 2024 -O -C target-feature=+crt-static -C strip=symbols bench/watch.rs -o "$work/watch"

# The kernel, for both levels.
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -n 1)
(cd "$work" && apt-get download -q "$package" && dpkg-deb -x ./*.deb kernel)
vmlinuz=$(find "$work/kernel/boot" -name 'vmlinuz-*')

# The measured guest.
mkdir -p "$work/guest/bin" "$work/guest/proc"
cp /bin/busybox "$work/guest/bin/"
cat > "$work/guest/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
read -r up rest < /proc/uptime
echo "@INIT $up"
/bin/busybox sleep 1
echo "@BYE"
/bin/busybox poweroff -f
INIT
chmod 755 "$work/guest/init"
(cd "$work/guest" && find . | cpio -o -H newc --quiet | gzip -9) > "$work/initrd"

# The lab.
lab=$work/lab
mkdir -p "$lab/bin" "$lab/proc" "$lab/sys" "$lab/dev" "$lab/tmp" "$lab/modules" "$lab/usr/share"
cp /bin/busybox "$lab/bin/"
cp "target/$triple/release/kiln" "$work/watch" "$work/initrd" "$lab/"
cp "$vmlinuz" "$lab/vmlinuz"
"$here/vmlinux.sh" "$vmlinuz" > "$lab/vmlinux"
for module in irqbypass kvm kvm-amd; do cp "$(find "$work/kernel" -name "$module.ko")" "$lab/modules/"; done
if [ -n "$peers" ]; then find "$peers" -maxdepth 1 -type f -perm -u+x -exec cp {} "$lab/" \; ; fi
qemu=$(command -v qemu-system-x86_64)
ldd "$qemu" | grep -o '/[^ ]*' | while read -r file; do mkdir -p "$lab${file%/*}"; cp -Ln "$file" "$lab$file"; done
mkdir -p "$lab/usr/bin" && cp -L "$qemu" "$lab/usr/bin/"
mkdir -p "$lab/usr/share/qemu" "$lab/usr/share/seabios"
cp -L /usr/share/qemu/*.rom /usr/share/qemu/*.bin "$lab/usr/share/qemu/" 2>/dev/null || true
cp -L /usr/share/seabios/*.bin "$lab/usr/share/seabios/" 2>/dev/null || true
cp "$here/vmm-peers.sh" "$lab/"
cat > "$lab/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
mount -t debugfs debug /sys/kernel/debug
mkdir -p /dev/pts; mount -t devpts pts /dev/pts
for module in irqbypass kvm kvm-amd; do insmod /modules/\$module.ko; done
export MEM=$MEM HOME=/tmp
. /vmm-peers.sh
echo "LAB: end"
poweroff -f
INIT
chmod 755 "$lab/init"
(cd "$lab" && find . | cpio -o -H newc --quiet) > "$work/lab.cpio"

: > "$work/rows"
round=0
while [ $round -lt "$ROUNDS" ]; do
    round=$((round + 1))
    # shellcheck disable=SC2013 # names have no spaces
    for peer in ${ONLY:-$(sed -n 's/^\([a-z0-9-]*\)) .*/\1/p' "$here/vmm-peers.sh")}; do
        # QEMU 7.2 now and then aborts on an assertion of its own while it emulates SVM: then once more.
        for try in 1 2 3; do
            timeout 240 qemu-system-x86_64 -accel tcg,thread=multi -smp 2 -cpu EPYC,+svm,+npt -M q35 -m 3072 \
                -display none -nodefaults -serial stdio -no-reboot -kernel "$vmlinuz" -initrd "$work/lab.cpio" \
                -append "console=ttyS0 quiet panic=-1 peer=$peer" < /dev/null > "$work/console" 2>&1 || true
            if grep -aq 'LAB: end' "$work/console"; then break; fi
            echo "vmm.sh: $peer: the lab broke off (try $try)" >&2
        done
        tr -d '\r' < "$work/console" | grep -a '^row' >> "$work/rows" || true
        grep -aq '^row .*init_ms' "$work/console" || cat "$work/console" >&2
    done
done
"$work/watch" table "$work/rows"
