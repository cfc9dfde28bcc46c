#!/bin/sh
# One disk of a whole machine: Debian's fio in a stock kernel, under kiln and under QEMU's microvm with what its users tune
# (PCI, an I/O thread, io_uring), each with a raw file and a qcow2 image of the same size, in the lab. The files are in the
# lab's memory, so what is measured is the way to them. KVM's exits are exact.
#
#   bench/disks.sh               medians of ROUNDS=5 boots of each; see bench/lab.sh
#   SECONDS_EACH=10              how long a job may take
#
# Needs what `./x test` installs, and fio.
set -eu
cd "$(dirname "$0")/.."
. ./bench/lab.sh

# The measured guest: all jobs in one run of fio, one after the other; the first one finds an empty disk.
skeleton "$guest" proc dev sys tmp
modules "$guest" virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk
programs "$guest" "$(command -v fio)"
{
    printf '[global]\nfilename=/dev/vda\nioengine=libaio\ndirect=1\nthread\n'
    job() { # NAME KIND BYTES DEPTH ALL WORDS…
        printf '[%s]\nstonewall\nrw=%s\nbs=%s\niodepth=%s\nio_size=%s\nexec_prerun=/mark %s\nexec_postrun=/mark end\n' "$1" "$2" "$3" "$4" "$5" "$1"
    }
    job first write 256k 4 128M
    for one in 'write write 256k 4 128M' 'read read 256k 4 128M' 'randread randread 4k 1 6M' 'randread32 randread 4k 32 24M' \
        'randwrite randwrite 4k 1 6M' 'randwrite32 randwrite 4k 32 24M'; do
        # shellcheck disable=SC2086 # the list is meant to be split
        job $one
        echo "runtime=${SECONDS_EACH:-10}"
    done
} > "$guest/jobs"
# shellcheck disable=SC2016 # the guest's
printf '#!/bin/sh\necho "@ $1" > /dev/ttyS0\n' > "$guest/mark"
chmod 755 "$guest/mark"
guest_init <<'INIT'
mount -t devtmpfs dev /dev; mount -t sysfs sys /sys; mount -t tmpfs tmp /tmp
cd /tmp
/usr/bin/fio --minimal --terse-version=3 /jobs > /tmp/out 2> /tmp/err
sed -n 's/^3;/@fio 3;/p' /tmp/out
cat /tmp/err
echo "@ over"
sleep 1
poweroff -f
INIT
pack "$guest" > "$work/initrd"

# shellcheck disable=SC2119 # no more modules
furnish_lab <<'BENCH'
format=${peer#*-}
case $format in
raw) disk=disk.img; truncate -s 128M $disk ;;
qcow2) disk=disk.qcow2; cp /empty.qcow2 $disk ;;
esac
mkfifo out
case $peer in
kiln-*) /kiln -q run -accel kvm -no-reboot -mem 400 -kernel /vmlinuz -initrd /initrd -cmdline "$line" -disk $disk > out 2>&1 < /dev/null & ;;
qemu-*) qemu-system-x86_64 -accel kvm -cpu host -M microvm,rtc=on,pcie=on -m 400 -nodefaults -display none -serial stdio -no-reboot \
    -kernel /vmlinuz -initrd /initrd -append "$line" -object iothread,id=io -drive if=none,id=d,file=$disk,format=$format,discard=unmap,aio=io_uring \
    -device virtio-blk-pci,drive=d,iothread=io,romfile= > out 2>&1 < /dev/null & ;;
esac
pid=$!
while read -r words; do
    words=$(echo "$words" | tr -d '\r')
    case $words in
    *'@fio '*) echo "row $round fio $peer ${words#*@fio }" ;;
    *'@ end') echo "row $round exits $peer $job $(($(exits) - before))" ;;
    # Resident memory, the guest's own apart: the mapping of its 400 MiB, or the parts that two ends of it are in.
    *'@ over') echo "row $round memory $peer $(awk '/^[0-9a-f]+-[0-9a-f]+ / { big = 0 } /^Size:/ { big = $2 > 100000 } /^Rss:/ && !big { sum += $2 } END { print sum }' /proc/$pid/smaps)" ;;
    *'@ '*) job=${words#*@ }; before=$(exits) ;;
    *) echo "$words" ;;
    esac
done < out
BENCH
qemu-img create -q -f qcow2 "$lab/empty.qcow2" 128M

rounds 5 memory kiln-raw qemu-raw kiln-qcow2 qemu-qcow2

# Medians. Of fio's terse words: 3 the job; KiB moved, KiB/s and requests a second are 6 to 8 of reads, 47 to 49 of writes.
python3 - "$rows" <<'TABLE'
import statistics
import sys

rates, exits, kib, memory = {}, {}, {}, {}
for row in open(sys.argv[1], encoding="utf-8"):
    turn, kind, peer, rest = row.rstrip("\n").removeprefix("row ").split(" ", 3)
    if kind == "fio":
        words = rest.split(";")
        job, at = words[2], 5 if int(words[5]) else 46
        rates.setdefault((peer, job), []).append(float(words[at + 2]))
        size = 4 if job.startswith("rand") else 256
        kib[turn, peer, job] = int(words[at]) / size
    elif kind == "exits":
        job, count = rest.split()
        exits[turn, peer, job] = int(count)
    else:
        memory.setdefault(peer, []).append(int(rest))
median = statistics.median
print("| | kiln raw | QEMU raw | ratio | kiln qcow2 | QEMU qcow2 | ratio | exits a request: kiln, QEMU raw; kiln, QEMU qcow2 |")
for job in dict.fromkeys(job for _, job in rates):
    cells = []
    for kind in ("raw", "qcow2"):
        both = [median(rates.get((f"{who}-{kind}", job), [0])) for who in ("kiln", "qemu")]
        cells += [f"{rate:.0f}" for rate in both] + [f"{both[0] / both[1]:.2f}" if both[1] else "-"]
    each = []
    for kind in ("raw", "qcow2"):
        for who in ("kiln", "qemu"):
            peer = f"{who}-{kind}"
            found = [exits[key] / kib[key] for key in exits if key[1:] == (peer, job) and kib.get(key)]
            each.append(f"{median(found):.2f}" if found else "-")
    print("|", job, "|", " | ".join(cells), "|", ", ".join(each), "|")
print("own memory, KiB:", {peer: median(values) for peer, values in memory.items()})
TABLE
