#!/bin/sh
# Every format from roots of several sizes: wall and user+system time, peak memory and size, and beside each the foreign
# tool that a user would run on the unpacked root. kiln starts from the image with an empty cache, so its times hold the
# unpacking too; the row `tar` is about that alone.
#
#   bench/formats.sh          SIZES='100 1024 4096' (MiB)   FORMATS='…'   KILN=path of a kiln to measure
#
# Needs umoci, time (GNU), squashfs-tools, squashfs-tools-ng, erofs-utils, xorriso, mtools, dosfstools, qemu-utils, cpio,
# and four times the largest size of free disk.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${KILN-}" ]; then
    cargo build --release --locked -p kiln
    KILN=$PWD/target/$(rustc -vV | sed -n 's/^host: //p')/release/kiln
fi
. ./bench/roots.sh
FORMATS=${FORMATS-$("$KILN" build --format none /dev/null 2>&1 | grep -o '`[a-z0-9+-]*`' | tr -d '`' | grep -vx -e none -e rpi3)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
vmlinuz
echo 'kernel: {image: "bench/kernel:1", tar: none, cmdline: "console=ttyS0"}' > bench.yml
echo 'init: ["bench/root:1"]' >> bench.yml

measure() { # NAME OUTPUT COMMAND…: one row
    name=$1 output=$2; shift 2
    if /usr/bin/time -o time -f '%e | %U + %S | %M' "$@" > out.log 2>&1; then
        echo "| $name | $(tail -n 1 time) | $(du -ck --apparent-size "$output" | tail -n 1 | cut -f 1) |"
    else
        echo "| $name | $(tail -n 1 out.log) | | | |"
    fi
    rm -rf "$output"
}

# What stands beside a format: COMMAND to the file `peer`, from the folder `root`.
peer() {
    case $1 in
    kernel+squashfs)
        measure "$2 mksquashfs" peer mksquashfs root peer -no-progress -quiet -all-root
        measure "$2 gensquashfs" peer gensquashfs -q -D root peer ;;
    kernel+erofs) measure "$2 mkfs.erofs" peer mkfs.erofs --quiet peer root ;;
    kernel+iso|iso-bios|iso-efi) measure "$2 xorriso" peer xorriso -as mkisofs -quiet -R -J -joliet-long -iso-level 3 -o peer root ;;
    kernel+initrd) measure "$2 cpio, gzip" peer sh -c '(cd root && find . | cpio -o -H newc --quiet) | gzip > peer' ;;
    raw-efi)
        (cd root && find . | cpio -o -H newc --quiet) | gzip > initrd
        disk_mib=$(($(stat -c %s initrd) / 1048576 + 64))
        measure "$2 mkfs.vfat, mcopy (packed before)" peer sh -c "truncate -s ${disk_mib}M peer && mkfs.vfat -F 32 peer && mcopy -i peer vmlinuz initrd ::" ;;
    qcow2-efi|vmdk|vhd|dynamic-vhd)
        [ -e initrd ] || return 0
        disk_mib=$(($(stat -c %s initrd) / 1048576 + 64))
        truncate -s ${disk_mib}M disk && mkfs.vfat -F 32 disk > out.log && mcopy -i disk vmlinuz initrd ::
        case $1 in vmdk) to=vmdk more=-osubformat=streamOptimized ;; *vhd) to=vpc more=-oforce_size ;; *) to=qcow2 more= ;; esac
        # shellcheck disable=SC2086 # an option or nothing
        measure "$2 qemu-img convert (disk made before)" peer qemu-img convert -O $to $more disk peer
        rm -f disk ;;
    esac
}

echo '| root, format | wall s | user + system s | peak KiB | size KiB |'
echo '| --- | --- | --- | --- | --- |'
for mib in ${SIZES-100 1024 4096}; do
    root "$mib" root
    store root store
    for format in $FORMATS; do
        rm -rf store/kiln-cache store/kiln-stamps
        measure "$mib MiB, $format: kiln" out \
            "$KILN" -q build --no-sbom --cache store --dir out --size $((mib * 2))M --format "$format" bench.yml
        peer "$format" "$mib MiB, $format:"
    done
    rm -f initrd
done
