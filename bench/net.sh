#!/bin/sh
# The network without a machine: kiln-net's stack against passt and slirp (QEMU's for MTU 1500, slirp4netns for 65520), in
# turn, each round with fresh processes; medians, spread, and how many times as good kiln's first column is.
#
#   bench/net.sh [STACK…]        all, or the ones named (bench/net/stacks.rs)
#   ROUNDS=5 ROWS=FILE TESTS='…' rounds, where the measured rows go, and which tests (bench/net/lab.rs)
#
# Needs root (for namespaces and a tap), ip, passt, qemu-system-x86_64, slirp4netns; nothing is installed, and nothing
# leaves the namespaces, which are gone at the end.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
for program in ip passt qemu-system-x86_64 slirp4netns; do
    command -v $program > /dev/null || { echo "$0: $program is missing (Debian: iproute2 passt qemu-system-x86 slirp4netns)" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "$0: needs root, for network namespaces" >&2; exit 1; }
work=$(mktemp -d)
trap 'for n in kiln-bench-h$$ kiln-bench-g$$; do ip netns del "$n" 2> /dev/null || true; done; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

cd "$here/.."
cargo build -q --release --locked -p kiln-net --example serve
triple=$(rustc -vV | sed -n 's/^host: //p')
rustc --edition 2024 -O bench/net/main.rs -o "$work/net"
cp "target/$triple/release/examples/serve" "$work/serve"
rows=${ROWS:-$work/rows}
ulimit -n "$(ulimit -Hn)"
"$work/net" lab "${ROUNDS:-5}" "$work/serve" "$@" | tee "$rows" >&2
"$work/net" table "$rows"
