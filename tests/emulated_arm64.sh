#!/bin/sh
# Does the bundle for a Raspberry Pi install, answer alike and measure itself on arm64? As root, on Debian:
#
#     apt-get install qemu-user-static binfmt-support debootstrap
#     tests/emulated_arm64.sh lightvision-rpi-quantized.zip /tmp/arm64
#
# Debian's arm64 Python 3.11 and the aarch64 wheels of requirements.txt run under qemu, which emulates the instructions.
# So answers mean something, and milliseconds nothing; there is no board, no camera and no systemd. A new folder takes
# some ten minutes, another bundle in it one or two.
set -eu
BUNDLE=$1 ROOT=$2
PYTHON_VERSION=3.11

[ -e "$ROOT/usr/bin/python3" ] ||
    debootstrap --arch=arm64 --variant=minbase --include=python3,python3-venv bookworm "$ROOT" http://deb.debian.org/debian
rm -rf "$ROOT/opt/bundle" "$ROOT/opt/wheels"
mkdir -p "$ROOT/opt/bundle"
python3 -m zipfile -e "$BUNDLE" "$ROOT/opt/bundle"
python3 -m pip download --quiet --no-deps --require-hashes --only-binary=:all: --python-version $PYTHON_VERSION \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
    --requirement "$ROOT/opt/bundle/requirements.txt" --dest "$ROOT/opt/wheels"

mount -t proc none "$ROOT/proc"
trap 'umount "$ROOT/proc"' EXIT
chroot "$ROOT" /bin/sh -euc '
    cd /opt/bundle
    uname -m
    PIP_NO_INDEX=1 PIP_FIND_LINKS=/opt/wheels sh install.sh
    .venv/bin/python run.py pictures/
    .venv/bin/python benchmark.py --rounds 6 --seconds 0.6 --name emulated --out emulated.json
    cat emulated.json'
