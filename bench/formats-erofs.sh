#!/bin/sh
# An EROFS image of a root of real files, by kiln and by mkfs.erofs, without compression and with LZ4. kiln's rows are whole
# builds whose layer is unpacked already; mkfs.erofs reads a folder. The files of the root are copies of this machine's
# /usr, as many as make the size. Medians of 5, 3 and 1 for 100, 1000 and 4000 MB.
#
#   bench/formats-erofs.sh          SIZES='100 1000 4000'   KILN=path of a kiln to measure
#
# Needs erofs-utils, umoci, time (GNU).
set -eu
cd "$(dirname "$0")/.."
. ./bench/roots.sh

fill() { # MEGABYTES: root/ of about that size
    rm -rf root && mkdir root
    copy=0
    while left=$(($1 - $(du -sm root | cut -f 1))) && [ $left -gt 1 ]; do
        copy=$((copy + 1))
        mkdir root/$copy
        (cd /usr && find bin lib share -xdev -type f -size -64M -print0 | sort -z | xargs -0 du -b --apparent-size |
            awk -v most=$((left * 1000000)) '{ sum += $1; if (sum > most) exit; sub(/^[0-9]+\t/, ""); print }' |
            tar -cf - -T -) | tar -xf - -C root/$copy
    done
}

echo 'init: ["bench/root:1"]' > bench.yml
echo '| root, compression | wall s | user + system s | peak KiB | size KiB |'
echo '| --- | --- | --- | --- | --- |'
for size in ${SIZES-100 1000 4000}; do
    fill "$size"
    store root root
    case $size in 100) rounds=5 ;; 1000) rounds=3 ;; *) rounds=1 ;; esac
    "$KILN" -q build --no-sbom --cache store --format kernel+erofs --name kiln bench.yml
    for _ in $(seq $rounds); do
        for how in none lz4 lz4hc; do
            rm -rf store/kiln-stamps
            measure "$size MB, $how: kiln" kiln-erofs.img \
                "$KILN" -q build --no-sbom --cache store --format kernel+erofs --erofs $how --name kiln bench.yml
            case $how in none) flag='' ;; *) flag=-z$how ;; esac
            # shellcheck disable=SC2086 # no flag is no word
            measure "$size MB, $how: mkfs.erofs" mkfs.img mkfs.erofs --quiet -T0 $flag mkfs.img root
        done
    done
    medians
done
