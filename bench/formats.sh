#!/bin/sh
# Every format from roots of several sizes: wall and user+system time, peak memory and size, and beside each the foreign
# tool that a user would run on the unpacked root. kiln starts from the image with an empty cache, so its times hold the
# unpacking too; the row `tar` is about that alone. Medians of ROUNDS.
#
#   bench/formats.sh          SIZES='100 1024 4096' (MiB)   ROUNDS=5   FORMATS='…'   KILN=path of a kiln to measure
#
# Needs umoci, time (GNU), squashfs-tools, squashfs-tools-ng, erofs-utils, xorriso, mtools, dosfstools, qemu-utils, cpio,
# and four times the largest size of free disk.
set -eu
cd "$(dirname "$0")/.."
. ./bench/roots.sh
FORMATS=${FORMATS-$("$KILN" build --format none /dev/null 2>&1 | grep -o '`[a-z0-9+-]*`' | tr -d '`' | grep -vx -e none -e rpi3)}
kernel
echo 'kernel: {image: "bench/kernel:1", tar: none, cmdline: "console=ttyS0"}' > bench.yml
echo 'init: ["bench/root:1"]' >> bench.yml

# The packed root as the file `initrd`, once, and how large a disk for it is in `disk_mib`.
initrd() {
    [ -e initrd ] || (cd root && find . | cpio -o -H newc --quiet) | gzip > initrd
    disk_mib=$(($(stat -c %s initrd) / 1048576 + 64))
}

# What stands beside a format: COMMAND to the file `peer`, from the folder `root`. All pack a squashfs by gzip, as kiln does.
peer() {
    case $1 in
    kernel+squashfs)
        measure "$2 mksquashfs" peer mksquashfs root peer -no-progress -quiet -all-root
        measure "$2 gensquashfs" peer gensquashfs -q -c gzip -D root peer ;;
    kernel+erofs) measure "$2 mkfs.erofs" peer mkfs.erofs --quiet peer root ;;
    kernel+iso|iso-bios|iso-efi) measure "$2 xorriso" peer xorriso -as mkisofs -quiet -R -J -joliet-long -iso-level 3 -o peer root ;;
    kernel+initrd) measure "$2 cpio, gzip" peer sh -c '(cd root && find . | cpio -o -H newc --quiet) | gzip > peer' ;;
    raw-efi)
        initrd
        measure "$2 mkfs.vfat, mcopy (packed before)" peer sh -c "truncate -s ${disk_mib}M peer && mkfs.vfat -F 32 peer && mcopy -i peer kernel/kernel initrd ::" ;;
    qcow2-efi|vmdk|vhd|dynamic-vhd)
        initrd
        truncate -s ${disk_mib}M disk && mkfs.vfat -F 32 disk > out.log && mcopy -i disk kernel/kernel initrd ::
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
    store root root kernel kernel
    for _ in $(seq "${ROUNDS-5}"); do
        for format in $FORMATS; do
            rm -rf store/kiln-cache store/kiln-stamps
            measure "$mib MiB, $format: kiln" out \
                "$KILN" -q build --no-sbom --cache store --dir out --size $((mib * 2))M --format "$format" bench.yml
            peer "$format" "$mib MiB, $format:"
        done
    done
    medians
    rm -f initrd
done
