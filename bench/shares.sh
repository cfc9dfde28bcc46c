#!/bin/sh
# A shared folder of a whole machine: one stock kernel with its own virtiofs under kiln, and under QEMU with Debian's virtiofsd
# (with its cache, which does not see what the host changes for a second, and without), in the lab: a machine of QEMU's software CPU
# in which KVM is real. The folder is on a tmpfs. Times there are 10 to 30 times those of hardware, so only their ratios
# count, and only on a quiet machine; KVM's exits are exact.
#
#   bench/shares.sh              medians of ROUNDS=5 boots of each
#   ONLY='…' ROWS=FILE           which of them, and where the measured rows go
#
# Needs what `./x test` installs, and qemu-system-common.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rows=${ROWS:-$work/rows}

cd "$here/.."
[ -n "${KILN:-}" ] || cargo build -q --release --locked -p kiln
triple=$(rustc -vV | sed -n 's/^host: //p')
rustc --edition 2024 -O -C target-feature=+crt-static -C strip=symbols bench/shares.rs -o "$work/shares"

# The kernel, for both levels.
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -n 1)
(cd "$work" && apt-get download -q "$package" > /dev/null 2>&1 && dpkg-deb -x ./*.deb kernel)
vmlinuz=$(find "$work/kernel/boot" -name 'vmlinuz-*')
copy() { for module in "$@"; do cp "$(find "$work/kernel" -name "$module.ko")" "$to"; done; }

# The measured guest.
modules='virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci fuse virtiofs'
to=$work/guest/modules
mkdir -p "$work/guest/bin" "$work/guest/proc" "$work/guest/mnt" "$to"
# shellcheck disable=SC2086 # names of modules
copy $modules
cp /bin/busybox "$work/guest/bin/"
cp "$work/shares" "$work/guest/"
cat > "$work/guest/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
for module in $modules; do insmod /modules/\$module.ko; done
mount -t virtiofs share /mnt && /shares load /mnt
poweroff -f
INIT
chmod 755 "$work/guest/init"
(cd "$work/guest" && find . | cpio -o -H newc --quiet | gzip) > "$work/initrd"

# The lab. virtiofsd changes its root, which it cannot in an initramfs: so the lab goes on in a tmpfs.
lab=$work/lab
to=$lab/modules
mkdir -p "$lab/bin" "$lab/proc" "$lab/sys" "$lab/dev" "$lab/tmp" "$lab/new" "$lab/usr/bin" "$lab/usr/share" "$lab/etc" "$lab/var/run" "$to"
echo 'root:x:0:0::/:/bin/sh' > "$lab/etc/passwd"
copy irqbypass kvm kvm-amd
cp /bin/busybox "$lab/bin/"
cp "${KILN:-target/$triple/release/kiln}" "$lab/kiln"
cp "$work/initrd" "$lab/"
cp "$vmlinuz" "$lab/vmlinuz"
for path in "$(command -v qemu-system-x86_64)" /usr/lib/qemu/virtiofsd; do
    ldd "$path" | grep -o '/[^ ]*' | while read -r file; do mkdir -p "$lab${file%/*}"; cp -Ln "$file" "$lab$file"; done
    cp -L "$path" "$lab/usr/bin/"
done
mkdir -p "$lab/usr/share/qemu" "$lab/usr/share/seabios"
cp -L /usr/share/qemu/*.rom /usr/share/qemu/*.bin "$lab/usr/share/qemu/" 2> /dev/null || true
cp -L /usr/share/seabios/*.bin "$lab/usr/share/seabios/" 2> /dev/null || true
cat > "$lab/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t tmpfs -o size=900m new /new
for part in bin etc init2 initrd kiln lib lib64 modules tmp usr var vmlinuz; do [ -e /$part ] && cp -a /$part /new/; done
mkdir -p /new/proc /new/sys /new/dev
exec switch_root /new /init2
INIT
cat > "$lab/init2" <<'INIT'
#!/bin/busybox sh
export PATH=/usr/bin:/bin HOME=/tmp
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp; chmod 1777 /tmp
mount -t debugfs debug /sys/kernel/debug
mkdir -p /dev/pts /tmp/share; mount -t devpts pts /dev/pts
for module in irqbypass kvm kvm-amd; do insmod /modules/$module.ko; done
name=$(sed 's/.*peer=\([a-z0-9-]*\).*/\1/' /proc/cmdline)
line='console=ttyS0 quiet panic=-1 reboot=t'
qemu() {
    virtiofsd --socket-path=/tmp/fs -f -o sandbox=chroot -o source=/tmp/share -o "cache=$1" > /tmp/virtiofsd.log 2>&1 &
    n=0; until [ -S /tmp/fs ] || [ $n -gt 200 ]; do sleep 0.1; n=$((n + 1)); done
    cat /tmp/virtiofsd.log
    qemu-system-x86_64 -accel kvm -cpu host -M q35,memory-backend=memory -object memory-backend-memfd,id=memory,size=256M,share=on \
        -m 256 -nodefaults -display none -serial stdio -no-reboot -kernel /vmlinuz -initrd /initrd -append "$line" \
        -chardev socket,id=fs,path=/tmp/fs -device vhost-user-fs-pci,chardev=fs,tag=share
}
case $name in
kiln) /kiln -q run -accel kvm -no-reboot -mem 256 -kernel /vmlinuz -initrd /initrd -cmdline "$line" -virtiofs /tmp/share,tag=share ;;
kiln-*) /kiln -q run -accel kvm -no-reboot -mem 256 -kernel /vmlinuz -initrd /initrd -cmdline "$line" -virtiofs "/tmp/share,tag=share,cache=${name#kiln-}" ;;
virtiofsd-*) qemu "${name#virtiofsd-}" ;;
esac < /dev/null 2>&1 | while read -r words; do
    case $words in
    *'@ '*)
        # User, nice, system, iowait (no work), irq, softirq, steal, and of these what guests used.
        read -r cpu user nice system idle iowait irq softirq steal guest rest < /proc/stat
        echo "row $name ${words#*@ } exits=$(cat /sys/kernel/debug/kvm/exits) cpu=$((user + nice + system + irq + softirq - guest))" | tr -d '\r' ;;
    *) echo "$words" ;;
    esac
done
echo "LAB: end"
poweroff -f
INIT
chmod 755 "$lab/init" "$lab/init2"
(cd "$lab" && find . | cpio -o -H newc --quiet) > "$work/lab.cpio"

: > "$rows"
round=0
while [ $round -lt "${ROUNDS:-5}" ]; do
    round=$((round + 1))
    for peer in ${ONLY:-kiln virtiofsd-none virtiofsd-auto}; do
        # QEMU 7.2 now and then aborts on an assertion of its own while it emulates SVM: then once more.
        for try in 1 2 3; do
            timeout "${LIMIT:-300}" qemu-system-x86_64 -accel tcg,thread=multi -smp 2 -cpu EPYC,+svm,+npt -M q35 -m 3072 \
                -display none -nodefaults -serial stdio -no-reboot -kernel "$vmlinuz" -initrd "$work/lab.cpio" \
                -append "console=ttyS0 quiet panic=-1 no_timer_check peer=$peer" < /dev/null > "$work/console" 2>&1 || true
            if grep -aq 'LAB: end' "$work/console"; then break; fi
            echo "shares.sh: $peer: the lab broke off (try $try)" >&2
        done
        tr -d '\r' < "$work/console" | grep -a '^row' | tee -a "$rows" >&2
        grep -aq '^row .*again' "$work/console" || cat "$work/console" >&2
    done
done
"$work/shares" table "$rows"
