#!/bin/sh
# The ELF kernel inside a bzImage, on standard output. Debian's cloud kernel is LZ4; other kinds are tried too.
set -eu
for kind in 'lz4:\002\041\114\030' 'xz -dc:\375\067zXZ\000' 'zstd -dc:\050\265\057\375' 'gzip -dc:\037\213\010'; do
    case $kind in lz4:*) program='lz4 -dc' ;; *) program=${kind%%:*} ;; esac
    magic=$(printf '%b' "$(echo "${kind#*:}" | sed 's/\\\([0-7]\{3\}\)/\\0\1/g')" | od -An -tx1 | tr -d ' \n' | sed 's/../\\x&/g')
    for offset in $(LC_ALL=C grep -obUaP "$magic" "$1" | cut -d: -f1 | head -n 8); do
        file=$(mktemp)
        tail -c +$((offset + 1)) "$1" | $program 2>/dev/null > "$file" || true
        if [ "$(head -c 4 "$file" | od -An -tx1 | tr -d ' ')" = 7f454c46 ]; then
            cat "$file"; rm -f "$file"; exit 0
        fi
        rm -f "$file"
    done
done
echo "vmlinux.sh: no ELF kernel in $1" >&2
exit 1
