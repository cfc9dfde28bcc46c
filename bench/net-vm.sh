#!/bin/sh
# The network of a whole machine: one stock kernel with its virtio-net driver under kiln, under QEMU with slirp and under
# QEMU with passt, each with its own defaults (MTU 1500, 1500 and 65520), in the lab: a machine of QEMU's software CPU in
# which KVM is real. Times there are 10 to 30 times those of hardware, so only their ratios count, and only on a quiet
# machine; the card's interrupts, as the guest counts them, are exact.
#
#   bench/net-vm.sh              medians of ROUNDS=3 boots of each
#   ONLY='…' ROWS=FILE           which of them, and where the measured rows go
#
# The guest speaks to a server in a network namespace of the lab: its host's own addresses are nobody's business.
# Needs what `./x test` installs, and passt, iproute2.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rows=${ROWS:-$work/rows}

cd "$here/.."
[ -n "${KILN:-}" ] || cargo build -q --release --locked -p kiln
triple=$(rustc -vV | sed -n 's/^host: //p')
rustc --edition 2024 -O -C target-feature=+crt-static -C strip=symbols bench/net/main.rs -o "$work/net"

# The kernel, for both levels.
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -n 1)
(cd "$work" && apt-get download -q "$package" > /dev/null 2>&1 && dpkg-deb -x ./*.deb kernel)
vmlinuz=$(find "$work/kernel/boot" -name 'vmlinuz-*')
copy() { for module in "$@"; do cp "$(find "$work/kernel" -name "$module.ko")" "$to"; done; }

# The measured guest.
card='virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net'
to=$work/guest/modules
mkdir -p "$work/guest/bin" "$work/guest/proc" "$to"
# shellcheck disable=SC2086 # names of modules
copy $card
cp /bin/busybox "$work/guest/bin/"
cp "$work/net" "$work/guest/"
cat > "$work/guest/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
for module in $card; do insmod /modules/\$module.ko; done
mtu=\$(sed 's/.*mtu=\([0-9]*\).*/\1/' /proc/cmdline)
echo cubic > /proc/sys/net/ipv4/tcp_congestion_control
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 mtu \$mtu up
ip route add default via 10.0.2.2
interrupts() { awk '/virtio[0-9]*-(in|out)put/ { sum += \$2 } END { print "irqs=" sum }' /proc/interrupts; }
echo "@ start \$(interrupts)"
for test in 'up 1 3000' 'down 1 3000' 'up 8 3000' 'down 8 3000' 'rr 1 3000' 'crr 16 3000'; do
    row=\$(/net load \${test%% *} 198.51.100.2 \${test#* } 2>&1 | tail -n 1)
    echo "@ \$(echo \$test | cut -d' ' -f1,2 | tr -d ' ') \$row \$(interrupts)"
done
poweroff -f
INIT
chmod 755 "$work/guest/init"
(cd "$work/guest" && find . | cpio -o -H newc --quiet | gzip) > "$work/initrd"

# The lab. passt changes its root, which it cannot in an initramfs: so the lab goes on in a tmpfs.
lab=$work/lab
to=$lab/modules
mkdir -p "$lab/bin" "$lab/proc" "$lab/sys" "$lab/dev" "$lab/tmp" "$lab/new" "$lab/usr/bin" "$lab/usr/share" "$lab/run/netns" "$lab/etc" "$to"
chmod 1777 "$lab/tmp"
echo 'root:x:0:0::/:/bin/sh
nobody:x:65534:65534::/:/bin/sh' > "$lab/etc/passwd"
copy irqbypass kvm kvm-amd veth
cp /bin/busybox "$lab/bin/"
cp "${KILN:-target/$triple/release/kiln}" "$lab/kiln"
cp "$work/net" "$work/initrd" "$lab/"
cp "$vmlinuz" "$lab/vmlinuz"
for program in qemu-system-x86_64 passt ip; do
    path=$(command -v $program)
    ldd "$path" | grep -o '/[^ ]*' | while read -r file; do mkdir -p "$lab${file%/*}"; cp -Ln "$file" "$lab$file"; done
    cp -L "$path" "$lab/usr/bin/"
done
cp -L "$(command -v passt).avx2" "$lab/usr/bin/" 2> /dev/null || true
mkdir -p "$lab/usr/share/qemu" "$lab/usr/share/seabios"
cp -L /usr/share/qemu/*.rom /usr/share/qemu/*.bin "$lab/usr/share/qemu/" 2> /dev/null || true
cp -L /usr/share/seabios/*.bin "$lab/usr/share/seabios/" 2> /dev/null || true
cat > "$lab/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t tmpfs -o size=900m new /new
for part in bin etc init2 initrd kiln lib lib64 modules net run tmp usr vmlinuz; do [ -e /$part ] && cp -a /$part /new/; done
mkdir -p /new/proc /new/sys /new/dev
exec switch_root /new /init2
INIT
cat > "$lab/init2" <<'INIT'
#!/bin/busybox sh
export PATH=/usr/bin:/bin HOME=/tmp
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp; chmod 1777 /tmp
mount -t debugfs debug /sys/kernel/debug
mkdir -p /dev/pts; mount -t devpts pts /dev/pts
for module in irqbypass kvm kvm-amd veth; do insmod /modules/$module.ko; done
/usr/bin/ip link set lo up
/usr/bin/ip netns add far
/usr/bin/ip link add near type veth peer name far
/usr/bin/ip link set far netns far
/usr/bin/ip addr add 198.51.100.1/24 dev near; /usr/bin/ip link set near up; /usr/bin/ip route add default via 198.51.100.2
/usr/bin/ip -n far addr add 198.51.100.2/24 dev far; /usr/bin/ip -n far link set far up; /usr/bin/ip -n far link set lo up
/usr/bin/ip netns exec far /net serve 198.51.100.2 > /tmp/served &
until grep -q ready /tmp/served; do sleep 0.1; done
name=$(sed 's/.*peer=\([a-z0-9-]*\).*/\1/' /proc/cmdline)
line='console=ttyS0 quiet panic=-1 reboot=t mtu='
qemu() { /usr/bin/qemu-system-x86_64 -accel kvm -cpu host -M q35 -m 256 -nodefaults -display none -serial stdio -no-reboot \
    -kernel /vmlinuz -initrd /initrd -device virtio-net-pci,netdev=n,romfile= "$@"; }
case $name in
kiln) /kiln -q run -accel kvm -no-reboot -mem 256 -kernel /vmlinuz -initrd /initrd -cmdline "${line}1500" ;;
qemu-slirp) qemu -append "${line}1500" -netdev user,id=n ;;
qemu-passt)
    passt --foreground --one-off --quiet --ipv4-only --socket /tmp/passt --interface near --address 10.0.2.15 --netmask 24 --gateway 10.0.2.2 > /tmp/passt.log 2>&1 &
    n=0; until [ -S /tmp/passt ] || [ $n -gt 200 ]; do sleep 0.1; n=$((n + 1)); done
    qemu -append "${line}65520" -netdev stream,id=n,server=off,addr.type=unix,addr.path=/tmp/passt ;;
esac < /dev/null 2>&1 | while read -r words; do
    case $words in
    *'@ '*) echo "row $name ${words#*@ } exits=$(cat /sys/kernel/debug/kvm/exits)" | tr -d '\r' ;;
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
while [ $round -lt "${ROUNDS:-3}" ]; do
    round=$((round + 1))
    for peer in ${ONLY:-kiln qemu-slirp qemu-passt}; do
        # QEMU 7.2 now and then aborts on an assertion of its own while it emulates SVM: then once more.
        for try in 1 2 3; do
            timeout "${LIMIT:-300}" qemu-system-x86_64 -accel tcg,thread=multi -smp 2 -cpu EPYC,+svm,+npt -M q35 -m 3072 \
                -display none -nodefaults -serial stdio -no-reboot -kernel "$vmlinuz" -initrd "$work/lab.cpio" \
                -append "console=ttyS0 quiet panic=-1 peer=$peer" < /dev/null > "$work/console" 2>&1 || true
            if grep -aq 'LAB: end' "$work/console"; then break; fi
            echo "net-vm.sh: $peer: the lab broke off (try $try)" >&2
        done
        tr -d '\r' < "$work/console" | grep -a '^row' | tee -a "$rows" >&2
        grep -aq '^row .*gbps' "$work/console" || cat "$work/console" >&2
    done
done
"$work/net" machines "$rows"
