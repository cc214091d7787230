#!/bin/sh
# mkbase.sh OUT.tar PACKAGE...: a Debian 12 root with the packages, as a tar
# file, without a registry. The same packages give the same bytes. Needs root
# and mmdebstrap.
set -eu
out=$1
shift
include=$(IFS=,; echo "$*")
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1700000000}
export SOURCE_DATE_EPOCH
tmp=$out.$$.tar
trap 'rm -f "$tmp"' EXIT
mmdebstrap --quiet --variant=minbase ${include:+--include="$include"} \
	--dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	bookworm "$tmp"
mv "$tmp" "$out"
