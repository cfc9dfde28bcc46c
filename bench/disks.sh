#!/bin/sh
# One disk of a whole machine: Debian's fio in a stock kernel, under kiln and under QEMU's microvm with what its users tune
# (PCI, an I/O thread, io_uring), each with a raw file and a qcow2 image of the same size, in the lab: a machine of QEMU's
# software CPU in which KVM is real. The files are in the lab's memory, so what is measured is the way to them. Times there are
# 10 to 30 times those of hardware, so only their ratios count; KVM's exits are exact.
#
#   bench/disks.sh               medians of ROUNDS=5 boots of each
#   ONLY='…' ROWS=FILE           which of them, and where the measured rows go
#   KILN=FILE SECONDS_EACH=10    a kiln that is built already, and how long a job may take
#
# Needs what `./x test` installs, and fio.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rows=${ROWS:-$work/rows}
seconds=${SECONDS_EACH:-10}

cd "$here/.."
[ -n "${KILN:-}" ] || cargo build -q --release --locked -p kiln
triple=$(rustc -vV | sed -n 's/^host: //p')

# The kernel, for both levels.
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -n 1)
(cd "$work" && apt-get download -q "$package" > /dev/null 2>&1 && dpkg-deb -x ./*.deb kernel)
vmlinuz=$(find "$work/kernel/boot" -name 'vmlinuz-*')
copy() { for module in "$@"; do cp "$(find "$work/kernel" -name "$module.ko")" "$to"; done; }
with_libraries() { # PROGRAM FOLDER
    ldd "$1" | grep -o '/[^ ]*' | while read -r file; do mkdir -p "$2${file%/*}"; cp -Ln "$file" "$2$file"; done
    mkdir -p "$2/usr/bin" && cp -L "$1" "$2/usr/bin/"
}

# The measured guest: all jobs in one run of fio, one after the other; the first one finds an empty disk.
modules='virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk'
guest=$work/guest
to=$guest/modules
mkdir -p "$guest/bin" "$guest/proc" "$guest/dev" "$guest/sys" "$guest/tmp" "$to"
# shellcheck disable=SC2086 # names of modules
copy $modules
cp /bin/busybox "$guest/bin/"
with_libraries "$(command -v fio)" "$guest"
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
        echo "runtime=$seconds"
    done
} > "$guest/jobs"
# shellcheck disable=SC2016 # the guest's
printf '#!/bin/sh\necho "@ $1" > /dev/ttyS0\n' > "$guest/mark"
cat > "$guest/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t devtmpfs dev /dev; mount -t sysfs sys /sys; mount -t tmpfs tmp /tmp
for module in $modules; do insmod /modules/\$module.ko; done
cd /tmp
/usr/bin/fio --minimal --terse-version=3 /jobs > /tmp/out 2> /tmp/err
sed -n 's/^3;/@fio 3;/p' /tmp/out
cat /tmp/err
echo "@ over"
sleep 1
poweroff -f
INIT
chmod 755 "$guest/init" "$guest/mark"
(cd "$guest" && find . | cpio -o -H newc --quiet) > "$work/initrd"

# The lab.
lab=$work/lab
to=$lab/modules
mkdir -p "$lab/bin" "$lab/proc" "$lab/sys" "$lab/dev" "$lab/tmp" "$lab/usr/share" "$to"
copy irqbypass kvm kvm-amd
cp /bin/busybox "$lab/bin/"
cp "${KILN:-target/$triple/release/kiln}" "$lab/kiln"
cp "$work/initrd" "$lab/"
cp "$vmlinuz" "$lab/vmlinuz"
qemu-img create -q -f qcow2 "$lab/empty.qcow2" 128M
with_libraries "$(command -v qemu-system-x86_64)" "$lab"
mkdir -p "$lab/usr/share/qemu" "$lab/usr/share/seabios"
cp -L /usr/share/qemu/*.rom /usr/share/qemu/*.bin "$lab/usr/share/qemu/" 2> /dev/null || true
cp -L /usr/share/seabios/*.bin "$lab/usr/share/seabios/" 2> /dev/null || true
cat > "$lab/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/bin:/bin HOME=/tmp
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
mount -t debugfs debug /sys/kernel/debug
mkdir -p /dev/pts; mount -t devpts pts /dev/pts
for module in irqbypass kvm kvm-amd; do insmod /modules/$module.ko; done
name=$(sed 's/.*peer=\([a-z0-9-]*\).*/\1/' /proc/cmdline)
line='console=ttyS0 quiet panic=-1 reboot=t'
format=${name#*-}
case $format in
raw) disk=/tmp/disk.img; truncate -s 128M $disk ;;
qcow2) disk=/tmp/disk.qcow2; cp /empty.qcow2 $disk ;;
esac
rm -f /tmp/out; mkfifo /tmp/out
case $name in
kiln-*) /kiln -q run -accel kvm -no-reboot -mem 400 -kernel /vmlinuz -initrd /initrd -cmdline "$line" -disk $disk > /tmp/out 2>&1 < /dev/null & ;;
qemu-*) /usr/bin/qemu-system-x86_64 -accel kvm -cpu host -M microvm,rtc=on,pcie=on -m 400 -nodefaults -display none -serial stdio -no-reboot \
    -kernel /vmlinuz -initrd /initrd -append "$line" -object iothread,id=io -drive if=none,id=d,file=$disk,format=$format,discard=unmap,aio=io_uring \
    -device virtio-blk-pci,drive=d,iothread=io,romfile= > /tmp/out 2>&1 < /dev/null & ;;
esac
pid=$!
exits() { cat /sys/kernel/debug/kvm/exits; }
while read -r words; do
    words=$(echo "$words" | tr -d '\r')
    case $words in
    *'@fio '*) echo "fio $name ${words#*@fio }" ;;
    *'@ end') echo "exits $name $job $(($(exits) - before))" ;;
    # Resident memory, the guest's own apart: the mapping of its 400 MiB, or the parts that two ends of it are in.
    *'@ over') echo "memory $name $(awk '/^[0-9a-f]+-[0-9a-f]+ / { big = 0 } /^Size:/ { big = $2 > 100000 } /^Rss:/ && !big { sum += $2 } END { print sum }' /proc/$pid/smaps)" ;;
    *'@ '*) job=${words#*@ }; before=$(exits) ;;
    *) echo "$words" ;;
    esac
done < /tmp/out
echo "LAB: end"
poweroff -f
INIT
chmod 755 "$lab/init"
(cd "$lab" && find . | cpio -o -H newc --quiet) > "$work/lab.cpio"

: > "$rows"
round=0
while [ $round -lt "${ROUNDS:-5}" ]; do
    round=$((round + 1))
    for peer in ${ONLY:-kiln-raw qemu-raw kiln-qcow2 qemu-qcow2}; do
        # QEMU 7.2 now and then aborts on an assertion of its own while it emulates SVM: then once more.
        for try in 1 2 3; do
            timeout "${LIMIT:-400}" qemu-system-x86_64 -accel tcg,thread=multi -smp 2 -cpu EPYC,+svm,+npt -M q35 -m 3072 \
                -display none -nodefaults -serial stdio -no-reboot -kernel "$vmlinuz" -initrd "$work/lab.cpio" \
                -append "console=ttyS0 quiet panic=-1 no_timer_check peer=$peer" < /dev/null > "$work/console" 2>&1 || true
            if grep -aq '^memory' "$work/console"; then break; fi
            echo "disks.sh: $peer: the lab broke off (try $try)" >&2
        done
        tr -d '\r' < "$work/console" | grep -aE '^(fio|exits|memory) ' | sed "s/^/$round /" >> "$rows"
        grep -aq '^memory' "$work/console" || cat "$work/console" >&2
        echo "disks.sh: round $round, $peer: done" >&2
    done
done

# Medians. Of fio's terse words: 3 the job; KiB moved, KiB/s and requests a second are 6 to 8 of reads, 47 to 49 of writes.
python3 - "$rows" <<'TABLE'
import statistics
import sys

rates, exits, kib, memory = {}, {}, {}, {}
for row in open(sys.argv[1], encoding="utf-8"):
    turn, kind, peer, rest = row.rstrip("\n").split(" ", 3)
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
