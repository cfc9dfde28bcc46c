# shellcheck shell=sh
# What the benches of builds share; sourced from the repository's root. Leaves a kiln to measure in `KILN`, and goes to an
# empty folder that is gone at the end. Needs umoci, time (GNU).
. ./bench/begin.sh
cd "$work" || exit

# root MIB FOLDER: makes a root. A third of the content is random, the rest is text, in files of 40 KB.
root() {
    rm -rf "$2" && mkdir -p "$2/text" "$2/random"
    (cd "$2/random" && head -c $(($1 / 3))M /dev/urandom | split -b 40k -a 4)
    (cd "$2/text" && seq 9999999999 | head -c $(($1 - $1 / 3))M | split -b 40k -a 4)
}

# store NAME FOLDER…: the OCI layout `store`, which holds each folder as the image `bench/NAME:1`.
store() {
    rm -rf store && umoci init --layout store
    while [ $# -gt 0 ]; do
        umoci new --image "store:docker.io/bench/$1:1"
        umoci insert --image "store:docker.io/bench/$1:1" "$2" / > umoci.log
        shift 2
    done
}

# kernel: fetches Debian's cloud kernel as the file `kernel` in the folder `kernel`.
kernel() {
    unpack_kernel unpacked
    mkdir kernel
    cp unpacked/boot/vmlinuz-* kernel/kernel
    rm -rf unpacked
}

# measure NAME OUTPUT COMMAND…: one line of the file `rows`: name, wall, user and system time, peak KiB, length in KiB. One
# that fails is told with its last words.
measure() {
    name=$1 output=$2; shift 2
    rm -rf "$output"
    if /usr/bin/time -o time -f '%e;%U;%S;%M' "$@" > out.log 2>&1; then
        echo "$name;$(cat time);$(du -ck --apparent-size "$output" | tail -n 1 | cut -f 1)" >> rows
    else
        echo "$name: $(tail -n 1 out.log)" >&2
    fi
    rm -rf "$output"
}

# medians: one row of a table for each name in `rows`, in the order in which they came first; empties `rows`.
medians() {
    [ -e rows ] || return 0
    cut -d ';' -f 1 rows | awk '!seen[$0]++' | while read -r name; do
        median() {
            awk -F ';' -v name="$name" -v column="$1" '$1 == name { print $column }' rows | sort -n |
                awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
        }
        echo "| $name | $(median 2) | $(median 3) + $(median 4) | $(median 5) | $(median 6) |"
    done
    rm rows
}
