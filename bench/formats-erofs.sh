#!/bin/sh
# An EROFS image of a root of real files, by kiln and by mkfs.erofs, without compression and with LZ4: wall and processor
# time, peak memory, size. kiln's rows are whole builds whose layer is unpacked already; mkfs.erofs reads a folder. The
# files of the root are copies of this machine's /usr, as many as make the size. Medians of 5, 3 and 1 for 100, 1000 and
# 4000 MB.
#
#   bench/formats-erofs.sh          SIZES='100 1000 4000'
#
# Needs erofs-utils, umoci, time (GNU).
set -eu
SIZES=${SIZES:-100 1000 4000}
cd "$(dirname "$0")/.."
cargo build --release --locked -p kiln
kiln=$PWD/target/$(rustc -vV | sed -n 's/^host: //p')/release/kiln
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

measure() { # NAME IMAGE COMMAND…: one line `NAME wall user+sys peak_kib bytes`
    name=$1 image=$2; shift 2
    rm -f "$image"
    /usr/bin/time -o time -f '%e %U %S %M' "$@" > out.log 2>&1 || { cat out.log; exit 1; }
    echo "$name $(awk '{ print $1, $2 + $3, $4 }' time) $(stat -c %s "$image")" >> rows
}
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
for size in $SIZES; do
    fill "$size"
    rm -rf store && umoci init --layout store
    umoci new --image store:docker.io/bench/root:1 && umoci insert --image store:docker.io/bench/root:1 root / > umoci.log
    echo 'init: ["bench/root:1"]' > bench.yml
    case $size in 100) rounds=5 ;; 1000) rounds=3 ;; *) rounds=1 ;; esac
    "$kiln" -q build --no-sbom --cache store --format kernel+erofs --name kiln bench.yml
    round=0
    while [ $round -lt $rounds ]; do
        round=$((round + 1))
        for how in none lz4 lz4hc; do
            rm -rf store/kiln-stamps
            measure "$size:$how:kiln" kiln-erofs.img \
                "$kiln" -q build --no-sbom --cache store --format kernel+erofs --erofs $how --name kiln bench.yml
            case $how in none) flag='' ;; *) flag=-z$how ;; esac
            # shellcheck disable=SC2086 # no flag is no word
            measure "$size:$how:mkfs.erofs" mkfs.img mkfs.erofs --quiet -T0 $flag mkfs.img root
        done
    done
done
echo '| root, MB | compression | by | wall s | processor s | peak MiB | image, MB |'
echo '| --- | --- | --- | --- | --- | --- | --- |'
cut -d ' ' -f 1 rows | awk '!seen[$0]++' | while read -r name; do
    median() { grep "^$name " rows | cut -d ' ' -f "$1" | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }
    echo "| $(echo "$name" | sed 's/:/ | /g') | $(median 2) | $(median 3) | $(($(median 4) / 1024)) | $(($(median 5) / 1000000)) |"
done
