# shellcheck shell=sh
# What every bench of kiln begins with; sourced from the repository's root. Leaves a kiln to measure in `KILN`, unless one is
# given, and in `work` an empty folder that is gone at the end, however that comes.
if [ -z "${KILN-}" ]; then
    cargo build -q --release --locked -p kiln
    KILN=$PWD/target/$(rustc -vV | sed -n 's/^host: //p')/release/kiln
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# unpack_kernel FOLDER: the package of Debian's cloud kernel, as a new folder.
unpack_kernel() {
    mkdir "$1"
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -n 1)
    (cd "$1" && apt-get download -q "$package" && dpkg-deb -x ./*.deb . && rm ./*.deb) > "$work/apt.log" 2>&1 || { cat "$work/apt.log" >&2; exit 1; }
}
