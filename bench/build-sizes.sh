#!/bin/sh
# Builds roots of several sizes with kiln: that time grows with the root and memory does not, and what the cache saves.
# A third of the content is random, the rest is text, in files of 40 KB.
#
#   bench/build-sizes.sh          SIZES='100 1024 4096' (MiB)   KILN=path of a kiln to measure
#
# Needs umoci, time (GNU), and three times the largest size of free disk.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${KILN-}" ]; then
    cargo build --release --locked -p kiln
    KILN=$PWD/target/$(rustc -vV | sed -n 's/^host: //p')/release/kiln
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

measure() { # NAME FORMAT: one row
    /usr/bin/time -o time -f '| %U | %e | %M KiB |' "$KILN" -q build --no-sbom --cache store --dir out --format "$2" bench.yml
    echo "| $1 $(cat time)"
}

echo '| root | user s | wall s | peak |'
echo '| --- | --- | --- | --- |'
for mib in ${SIZES-100 1024 4096}; do
    rm -rf root store out && mkdir -p root/text root/random
    (cd root/random && head -c $((mib / 3))M /dev/urandom | split -b 40k -a 4)
    (cd root/text && seq 9999999999 | head -c $((mib - mib / 3))M | split -b 40k -a 4)
    umoci init --layout store
    umoci new --image store:docker.io/bench/root:1
    umoci insert --image store:docker.io/bench/root:1 root / > umoci.log
    rm -rf root
    for format in tar kernel+initrd; do
        rm -rf store/kiln-cache out
        echo 'services: [{name: root, image: "bench/root:1", command: [/bin/true]}]' > bench.yml
        measure "$mib MiB, \`$format\`" "$format"
        echo 'files: [{path: etc/new, contents: new}]' >> bench.yml
        measure "$mib MiB, \`$format\`, a file is new" "$format"
        measure "$mib MiB, \`$format\`, nothing is new" "$format"
    done
done
