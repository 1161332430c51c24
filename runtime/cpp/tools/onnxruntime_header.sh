#!/usr/bin/env bash
# Unpacks Debian's libonnxruntime-dev, which has onnxruntime_c_api.h, into a folder; needs apt, not root.
# Debian has the package from 13 (trixie) on. An older Debian asks its own mirror for a later suite:
# apt checks the signatures, and its lists and sources of the system stay as they are.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
PACKAGE=libonnxruntime-dev
SUITES="trixie forky"

fail() {
  echo "$1 Install $PACKAGE, or unpack a release of ONNX Runtime and set ONNXRUNTIME_ROOT to its folder." >&2
  exit 1
}
for tool in apt-get dpkg-deb; do
  command -v "$tool" > /dev/null || fail "There is no $tool here."
done

mkdir -p "$1"
cd "$1"
mkdir -p apt/lists/partial apt/cache/archives/partial
rm -f ./"$PACKAGE"_*.deb

download() { apt-get -qq -o APT::Sandbox::User=root "$@" download "$PACKAGE"; }

download_from() { # a suite of the mirrors that this system uses
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -f "$keyring" ] || return 1
  apt-get update --print-uris \
    | sed -n "s,^'\(.*\)/dists/\([^/]*\)/InRelease'.*,\1 \2,p" \
    | awk -v keyring="$keyring" -v suite="$1" \
      '$2 !~ /-/ { print "deb [signed-by=" keyring "] " $1 " " suite " main" }' > apt/sources.list
  local private=(
    -o "Dir::Etc::sourcelist=$PWD/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$PWD/apt/lists" -o "Dir::Cache=$PWD/apt/cache"
  )
  apt-get -qq -o APT::Sandbox::User=root "${private[@]}" update && download "${private[@]}"
}

found=
for suite in here $SUITES; do
  if [ "$suite" = here ]; then
    download 2> /dev/null && found=yes && break
  else
    download_from "$suite" && found=yes && break
  fi
done
[ -n "$found" ] || fail "apt has no $PACKAGE in its own suites, nor in $SUITES."
dpkg-deb --extract ./"$PACKAGE"_*.deb .
rm -rf apt ./"$PACKAGE"_*.deb
