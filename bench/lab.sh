# shellcheck shell=sh
# The lab of the benches of whole machines; sourced from the repository's root. It is a machine of QEMU's software CPU in
# which KVM is real, with the kernel that the measured guest has too. Times in it are 10 to 30 times those of hardware, so
# only their ratios count, and only on a quiet machine.
#
#   KILN=FILE              a kiln that is built already
#   ROUNDS=N ONLY='…'      how often each peer is booted, and which peers
#   ROWS=FILE LIMIT=400    where the measured rows go; after how many seconds a boot is given up
#
# A bench makes the measured guest in `$guest`, packs it as `$work/initrd`, calls `furnish_lab` and then `rounds`.
. ./bench/begin.sh
rows=${ROWS:-$work/rows}
guest=$work/guest
lab=$work/lab
machine=
trap '[ -z "$machine" ] || kill "$machine" || true; rm -rf "$work"' EXIT

unpack_kernel "$work/kernel"
vmlinuz=$(find "$work/kernel/boot" -name 'vmlinuz-*')

# compile SOURCE NAME: a program of plain Rust that runs on any Linux, as `$work/NAME`.
compile() {
    rustc --edition 2024 -O -C target-feature=+crt-static -C strip=symbols "$1" -o "$work/$2"
}

# skeleton ROOT FOLDER…: busybox and these folders.
skeleton() {
    root=$1
    shift
    mkdir -p "$root/bin"
    for folder; do mkdir -p "$root/$folder"; done
    cp /bin/busybox "$root/bin/"
}

# modules ROOT NAME…: modules of the kernel, and `modules/load`, which loads them in this order.
modules() {
    root=$1
    shift
    mkdir -p "$root/modules"
    for module; do
        cp "$(find "$work/kernel" -name "$module.ko")" "$root/modules/"
        echo "insmod /modules/$module.ko" >> "$root/modules/load"
    done
}

# programs ROOT FILE…: programs in `usr/bin`, and the libraries that they need.
programs() {
    root=$1
    shift
    mkdir -p "$root/usr/bin"
    for program; do
        ldd "$program" | grep -o '/[^ ]*' | while read -r file; do
            [ -e "$root$file" ] || { mkdir -p "$root${file%/*}" && cp -L "$file" "$root$file"; }
        done
        cp -L "$program" "$root/usr/bin/"
    done
}

# guest_init: what the measured guest does once its modules are loaded is standard input. Words of its command line that its
# kernel does not know are variables, as in every init.
guest_init() {
    cat - > "$guest/bench"
    cat > "$guest/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
. /modules/load
. /bench
INIT
    chmod 755 "$guest/init"
}

# pack ROOT: as an initial RAM disk, on standard output.
pack() {
    (cd "$1" && find . | cpio -o -H newc --quiet)
}

# furnish_lab MODULE…: kiln, QEMU, the kernel and the measured guest in `$lab`. What the lab does is standard input: it
# starts `$peer` with the guest's command line `$line`, and prints what it measures as lines that begin with `row `. It finds
# `$round`, and `exits`, which counts KVM's so far.
furnish_lab() {
    cat - > "$work/bench"
    skeleton "$lab" proc sys dev tmp new etc run/netns var/run usr/share/qemu usr/share/seabios
    mv "$work/bench" "$lab/bench"
    modules "$lab" irqbypass kvm kvm-amd "$@"
    programs "$lab" "$(command -v qemu-system-x86_64)"
    cp -L /usr/share/qemu/*.rom /usr/share/qemu/*.bin "$lab/usr/share/qemu/" 2> /dev/null || true
    cp -L /usr/share/seabios/*.bin "$lab/usr/share/seabios/" 2> /dev/null || true
    cp "$KILN" "$lab/kiln"
    cp "$vmlinuz" "$lab/vmlinuz"
    cp "$work/initrd" "$lab/initrd"
    printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' > "$lab/etc/passwd"
    cat > "$lab/init" <<'INIT'
#!/bin/busybox sh
# Programs that change their root cannot do so in an initramfs: so the lab goes on in a tmpfs.
/bin/busybox --install -s /bin
mount -t tmpfs new /new
for part in /*; do [ "$part" = /new ] || cp -a "$part" /new/; done
exec switch_root /new /begin
INIT
    # `peer` and `round` are words of the command line.
    cat > "$lab/begin" <<'INIT'
#!/bin/busybox sh
export PATH=/usr/bin:/bin HOME=/tmp
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp; chmod 1777 /tmp
mount -t debugfs debug /sys/kernel/debug
mkdir -p /dev/pts; mount -t devpts pts /dev/pts
. /modules/load
line='console=ttyS0 quiet panic=-1 reboot=t'
exits() { cat /sys/kernel/debug/kvm/exits; }
cd /tmp
. /bench
echo "LAB: end"
poweroff -f
INIT
    chmod 755 "$lab/init" "$lab/begin"
}

# rounds COUNT WANTED PEER…: boots the lab for each peer in turn, so many times, and collects the rows in `$rows`. A run is
# whole when it has the row WANTED, a pattern.
rounds() {
    count=${ROUNDS:-$1} wanted="^row .*$2"
    shift 2
    # shellcheck disable=SC2086 # names of peers
    [ -z "${ONLY:-}" ] || set -- $ONLY
    pack "$lab" > "$work/lab.cpio"
    : > "$rows"
    for round in $(seq "$count"); do
        for peer; do
            # QEMU 7.2 now and then aborts on an assertion of its own while it emulates SVM: then once more.
            for try in 1 2 3; do
                boot "peer=$peer round=$round"
                if grep -aq "$wanted" "$work/console"; then break; fi
                echo "${0##*/}: $peer: the lab broke off (try $try)" >&2
            done
            tr -d '\r' < "$work/console" | grep -a '^row ' | tee -a "$rows" >&2
            grep -aq "$wanted" "$work/console" || cat "$work/console" >&2
        done
    done
}

# boot WORDS: the lab once, with these words on its kernel's command line; what it says is in `$work/console`.
boot() {
    timeout "${LIMIT:-400}" qemu-system-x86_64 -accel tcg,thread=multi -smp 2 -cpu EPYC,+svm,+npt -M q35 -m 3072 \
        -display none -nodefaults -serial stdio -no-reboot -kernel "$vmlinuz" -initrd "$work/lab.cpio" \
        -append "console=ttyS0 quiet panic=-1 no_timer_check $1" < /dev/null > "$work/console" 2>&1 &
    # A signal ends a `wait` at once, and a program in the foreground not at all.
    machine=$!
    wait "$machine" || true
    machine=
}
