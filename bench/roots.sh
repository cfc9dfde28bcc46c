# shellcheck shell=sh
# Roots to measure with; sourced. A third of the content is random, the rest is text, in files of 40 KB.

# root MIB FOLDER: makes it.
root() {
    rm -rf "$2" && mkdir -p "$2/text" "$2/random"
    (cd "$2/random" && head -c $(($1 / 3))M /dev/urandom | split -b 40k -a 4)
    (cd "$2/text" && seq 9999999999 | head -c $(($1 - $1 / 3))M | split -b 40k -a 4)
}

# store FOLDER STORE: an OCI layout with the image `bench/root:1` of that root, and `bench/kernel:1` of the kernel `vmlinuz`.
store() {
    rm -rf "$2" && umoci init --layout "$2"
    umoci new --image "$2:docker.io/bench/root:1"
    umoci insert --image "$2:docker.io/bench/root:1" "$1" / > umoci.log
    mkdir -p kernel-image && cp vmlinuz kernel-image/kernel
    umoci new --image "$2:docker.io/bench/kernel:1"
    umoci insert --image "$2:docker.io/bench/kernel:1" kernel-image / > umoci.log
}

# vmlinuz: fetches Debian's cloud kernel as the file `vmlinuz`.
vmlinuz() {
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -n 1)
    apt-get download -q "$package" > apt.log
    dpkg-deb -x ./linux-image-*.deb unpacked
    cp unpacked/boot/vmlinuz-* vmlinuz
}
