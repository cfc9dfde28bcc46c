#!/bin/sh
# Disk images of systems with 100 MB and 1 GB of content that does not pack: kiln's raw-efi and qcow2-efi, whole builds
# of which the layers and the packed chunks are in the store, against what comes after a build elsewhere: mkfs.vfat and
# mcopy of a finished EFI program into a finished partition, and qemu-img convert of the disk. Wall and user time, peak
# memory; medians of ROUNDS.
#
#   bench/formats-disk.sh          ROUNDS=5
#
# Needs umoci, mtools, dosfstools, gdisk, qemu-utils, time (GNU).
set -eu
ROUNDS=${ROUNDS:-5}
cd "$(dirname "$0")/.."
cargo build --release --locked -p kiln
kiln=$PWD/target/$(rustc -vV | sed -n 's/^host: //p')/release/kiln
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -n 1)
apt-get download -q "$package" > apt.log
dpkg-deb -x ./linux-image-*.deb kernel
mkdir -p kernel-image
cp kernel/boot/vmlinuz-* kernel-image/kernel
umoci init --layout store
umoci new --image store:docker.io/bench/kernel-image:1
umoci insert --image store:docker.io/bench/kernel-image:1 kernel-image / > umoci.log

measure() { # NAME COMMAND…: one line `NAME wall user peak_kib`
    name=$1; shift
    /usr/bin/time -o time -f '%e %U %M' "$@" > out.log 2>&1 || { cat out.log; exit 1; }
    echo "$name $(cat time)" >> rows
}
for megabytes in 100 1000; do
    mkdir -p "data-$megabytes/big"
    head -c "${megabytes}000000" /dev/urandom > "data-$megabytes/big/random"
    umoci new --image "store:docker.io/bench/data-$megabytes:1"
    umoci insert --image "store:docker.io/bench/data-$megabytes:1" "data-$megabytes" / > umoci.log
    cat > "disk-$megabytes.yml" <<YML
kernel: {image: "bench/kernel-image:1", cmdline: "console=ttyS0", tar: none}
init: ["bench/data-$megabytes:1"]
YML
    kiln() {
        rm -rf store/kiln-stamps
        measure "kiln:$1:$megabytes" "$kiln" -q build --no-sbom --cache store --size 2G --format "$1" --name disk "disk-$megabytes.yml"
    }
    kiln raw-efi
    kiln qcow2-efi
    mcopy -n -i "disk-efi.img@@1M" ::/EFI/BOOT/BOOTX64.EFI program.efi
    rm -f rows
    cat > peer.sh <<'SH'
set -eu
rm -f peer.img peer.vfat
truncate -s "$(stat -c %s disk-efi.img)" peer.img
sgdisk -n 1:2048:0 -t 1:ef00 -c "1:EFI System" peer.img > sgdisk.log
truncate -s "$(($(stat -c %s disk-efi.img) - 2097152))" peer.vfat
mkfs.vfat -F 32 peer.vfat > mkfs.log
mmd -i peer.vfat ::/EFI ::/EFI/BOOT
mcopy -i peer.vfat program.efi ::/EFI/BOOT/BOOTX64.EFI
dd if=peer.vfat of=peer.img bs=1M seek=1 conv=notrunc,sparse status=none
SH
    round=0
    while [ $round -lt "$ROUNDS" ]; do
        round=$((round + 1))
        kiln raw-efi
        measure "mkfs.vfat+mcopy:raw-efi:$megabytes" sh peer.sh
        kiln qcow2-efi
        measure "qemu-img:qcow2-efi:$megabytes" qemu-img convert -f raw -O qcow2 disk-efi.img peer.qcow2
    done
    cat rows >> all
    rm -f rows disk-efi.* disk.* peer.* program.efi
done
echo '| what | wall s | user s | peak MiB |'
echo '| --- | --- | --- | --- |'
# shellcheck disable=SC2013 # names have no spaces
for name in $(cut -d' ' -f1 all | sort -u); do
    awk -v name="$name" '$1 == name { print $2, $3, $4 }' all | sort -n |
        awk -v name="$name" '{ row[NR] = $0 } END { split(row[int((NR + 1) / 2)], at, " "); printf "| %s | %s | %s | %d |\n", name, at[1], at[2], at[3] / 1024 }'
done
