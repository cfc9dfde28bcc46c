#!/bin/sh
# Boots one stock kernel under kiln and under what a user would pick instead, side by side, in the lab. KVM's counters are
# exact.
#
#   bench/vmm.sh [PEERS_DIR]     medians of ROUNDS=5 boots of each; see bench/lab.sh
#   MEM=128                      the guest's memory in MiB
#
# PEERS_DIR may hold static binaries: firecracker, cloud-hypervisor.
# Needs what `./x test` installs, and lz4.
set -eu
cd "$(dirname "$0")/.."
. ./bench/lab.sh
compile bench/watch.rs watch

skeleton "$guest" proc
cat > "$guest/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
read -r up rest < /proc/uptime
echo "@INIT $up"
/bin/busybox sleep 1
echo "@BYE"
/bin/busybox poweroff -f
INIT
chmod 755 "$guest/init"
pack "$guest" | gzip -9 > "$work/initrd"

# shellcheck disable=SC2119 # no more modules
{ echo "MEM=${MEM:-128}"; cat bench/vmm-peers.sh; } | furnish_lab
cp "$work/watch" "$lab/"
bench/vmlinux.sh "$vmlinuz" > "$lab/vmlinux"
if [ -n "${1:-}" ]; then find "$1" -maxdepth 1 -type f -perm -u+x -exec cp {} "$lab/" \; ; fi

# shellcheck disable=SC2046 # names have no spaces
rounds 5 init_ms $(sed -n 's/^\([a-z0-9-]*\)) .*/\1/p' bench/vmm-peers.sh)
"$work/watch" table "$rows"
