#!/bin/sh
# Builds roots of several sizes with kiln: that time grows with the root and memory does not, and what the cache saves.
# A third of the content is random, the rest is text, in files of 40 KB.
#
#   bench/build-sizes.sh          SIZES='100 1024 4096' (MiB)   KILN=path of a kiln to measure
#
# Needs umoci, time (GNU), and three times the largest size of free disk.
set -eu
cd "$(dirname "$0")/.."
. ./bench/roots.sh

measure_build() { # NAME FORMAT: one row
    /usr/bin/time -o time -f '| %U | %e | %M KiB |' "$KILN" -q build --no-sbom --cache store --dir out --format "$2" bench.yml
    echo "| $1 $(cat time)"
}

echo '| root | user s | wall s | peak |'
echo '| --- | --- | --- | --- |'
for mib in ${SIZES-100 1024 4096}; do
    root "$mib" root
    store root root
    rm -rf root
    for format in tar kernel+initrd; do
        rm -rf store/kiln-cache out
        echo 'services: [{name: root, image: "bench/root:1", command: [/bin/true]}]' > bench.yml
        measure_build "$mib MiB, \`$format\`" "$format"
        echo 'files: [{path: etc/new, contents: new}]' >> bench.yml
        measure_build "$mib MiB, \`$format\`, a file is new" "$format"
        measure_build "$mib MiB, \`$format\`, nothing is new" "$format"
    done
done
