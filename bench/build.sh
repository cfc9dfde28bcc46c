#!/bin/sh
# Builds one 332 MB system with kiln and with what a user would string together instead (umoci, tar, cpio, gzip), side by
# side: wall and user time, peak memory, size. The images are in the store; medians of ROUNDS. If `linuxkit` is in PATH,
# it builds the same.
#
#   bench/build.sh          ROUNDS=5   KILN=path of a kiln to measure
#
# Needs debootstrap, umoci, skopeo, cpio, time (GNU), busybox-static; root for debootstrap.
set -eu
ROUNDS=${ROUNDS:-5}
cd "$(dirname "$0")/.."
. ./bench/roots.sh

# 1. The images, in one OCI layout that is also kiln's store. The root is as debootstrap leaves it, packages and all.
debootstrap --variant=minbase stable root > debootstrap.log
unpack_kernel kernel
mkdir -p kernel-image busybox/bin
cp kernel/boot/vmlinuz-* kernel-image/kernel
tar -C kernel -cf kernel-image/kernel.tar ./lib
cp /bin/busybox busybox/bin/
store kernel-image kernel-image busybox busybox root root
cat > bench.yml <<'YML'
kernel: {image: "bench/kernel-image:1", cmdline: "console=ttyS0"}
init: ["bench/busybox:1"]
onboot: [{name: busybox, image: "bench/busybox:1", command: [/bin/busybox, "true"]}]
services: [{name: debian, image: "bench/root:1", command: [/bin/true]}]
YML
sed '$a files: [{path: etc/new, contents: new}]' bench.yml > changed.yml

# 2. What the comparison does: unpack each image where a bundle wants it, then one archive of it all.
cat > pipeline.sh <<'SH'
set -eu
rm -rf tree && mkdir -p tree/containers/services/debian tree/containers/onboot/000-busybox
umoci raw unpack --image store:docker.io/bench/kernel-image:1 k > /dev/null
tar -C tree -xf k/kernel.tar
umoci raw unpack --image store:docker.io/bench/busybox:1 tree/i > /dev/null
umoci raw unpack --image store:docker.io/bench/busybox:1 tree/containers/onboot/000-busybox/lower > /dev/null
umoci raw unpack --image store:docker.io/bench/root:1 tree/containers/services/debian/lower > /dev/null
case $1 in
tar) tar -C tree -cf pipeline.tar . ;;
kernel+initrd) (cd tree && find . | cpio -o -H newc --quiet) | gzip > pipeline-initrd.img ;;
esac
rm -rf tree k
SH

measure() { # NAME COMMAND…: one line `NAME wall user peak_kib`
    name=$1; shift
    /usr/bin/time -o time -f '%e %U %M' "$@" > out.log 2>&1 || { cat out.log; exit 1; }
    echo "$name $(cat time)" >> rows
}
round=0
while [ $round -lt "$ROUNDS" ]; do
    round=$((round + 1))
    for format in tar kernel+initrd; do
        rm -rf bench.tar bench-* store/kiln-cache store/kiln-stamps
        kiln() { measure "$1" "$KILN" -q build --no-sbom --cache store --format "$format" --name bench "$2"; }
        kiln "kiln:$format" bench.yml
        kiln "kiln:$format:a-file-is-new" changed.yml
        kiln "kiln:$format:nothing-is-new" changed.yml
        measure "pipeline:$format" sh pipeline.sh "$format"
        if command -v linuxkit > linuxkit.path; then
            measure "linuxkit:$format" linuxkit -q build --cache store --no-sbom --format "$format" --name linuxkit bench.yml
        fi
        stat -c '%n: %s bytes' ./*-initrd.img ./*.tar > sizes 2>/dev/null || true
    done
done
cat sizes
echo '| what | wall s | user s | peak MiB |'
echo '| --- | --- | --- | --- |'
# shellcheck disable=SC2013 # names have no spaces
for name in $(cut -d' ' -f1 rows | sort -u); do
    median() { awk -v n="$name" -v c="$1" '$1 == n {print $c}' rows | sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
    echo "| $name | $(median 2) | $(median 3) | $(($(median 4) / 1024)) |"
done
