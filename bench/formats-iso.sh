#!/bin/sh
# ISOs of several sizes, made by kiln and by others from the same tree: time, memory and size. Two thirds of the content are
# text, the rest is random; files of 40 KB, ten of 2 MB.
#
#   bench/formats-iso.sh          SIZES='100 1024 4096' (MiB)   KILN=path of a kiln to measure
#
# kiln reads its own store, the others a folder on the same disk. Medians of five runs, three from 1 GiB on, one from 4 GiB on.
# Needs umoci, xorriso, genisoimage, time (GNU), and five times the largest size of free disk.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${KILN-}" ]; then
    cargo build --release --locked -p kiln
    KILN=$PWD/target/$(rustc -vV | sed -n 's/^host: //p')/release/kiln
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

measure() { # RUNS NAME FILE COMMAND...: one row, the run with the median wall time
    runs=$1 name=$2 file=$3
    shift 3
    : > times
    for _ in $(seq "$runs"); do
        rm -rf out store/kiln-stamps
        mkdir out
        sync
        /usr/bin/time -a -o times -f '%e %U %S %M' "$@" > log 2>&1 || { cat log; exit 1; }
    done
    sort -n times | sed -n "$(((runs + 1) / 2))p" | {
        read -r wall user system peak
        echo "| $name | $wall | $user | $system | $peak KiB | $(stat -c %s "$file") |"
    }
}

echo '| root, writer | wall s | user s | system s | peak | bytes |'
echo '| --- | --- | --- | --- | --- | --- |'
for mib in ${SIZES-100 1024 4096}; do
    runs=5
    [ "$mib" -lt 1024 ] || runs=3
    [ "$mib" -lt 4096 ] || runs=1
    rm -rf root store
    mkdir -p root/text root/random root/large
    (cd root/random && head -c $((mib / 3 - 20))M /dev/urandom | split -b 40k -a 4)
    (cd root/large && head -c 20M /dev/urandom | split -b 2M)
    (cd root/text && seq 9999999999 | head -c $((mib - mib / 3))M | split -b 40k -a 4)
    umoci init --layout store
    umoci new --image store:docker.io/bench/root:1
    umoci insert --image store:docker.io/bench/root:1 root / > umoci.log
    echo 'init: ["bench/root:1"]' > bench.yml
    # Once, so that its layers are unpacked: the others start from a folder.
    "$KILN" -q build --no-sbom --cache store --dir out --format kernel+iso bench.yml
    # A new file each time: else nothing would be done.
    build="echo \"files: [{path: etc/new, contents: \$(date +%N)}]\" > new.yml
        exec \"$KILN\" -q build --no-sbom --cache store --dir out --name it --format kernel+iso bench.yml new.yml"
    measure "$runs" "$mib MiB, kiln" out/it.iso sh -euc "$build"
    measure "$runs" "$mib MiB, xorriso" out/it.iso xorriso -as mkisofs -quiet -l -J -R -V LinuxKit -o out/it.iso root
    measure "$runs" "$mib MiB, genisoimage" out/it.iso genisoimage -quiet -l -J -R -V LinuxKit -o out/it.iso root
done
