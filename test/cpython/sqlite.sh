#!/bin/sh
# sqlite.sh DIR: puts test.test_sqlite3 of CPython 3.11.2 into DIR. Debian's
# libpython3.11-testsuite lacks it (3.11 moved it from the sqlite3 package), so
# it comes from Debian's source package, fetched with apt from the mirrors that
# this machine uses.
set -eu
out=$1
sum=2411c74bda5bbcfcddaf4531f66d1adc73f247f529aee981b029513aefdbf849
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/lists/partial" "$tmp/sources"
for f in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
	[ -f "$f" ] || continue
	case $f in
	*.sources) sed 's/^Types:.*/Types: deb-src/' "$f" >"$tmp/sources/${f##*/}" ;;
	*.list) sed -n 's/^deb\(-src\)\{0,1\} /deb-src /p' "$f" >"$tmp/sources/${f##*/}" ;;
	esac
done
apt="-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=$tmp/sources -o Dir::State::lists=$tmp/lists -o APT::Sandbox::User=root"
apt-get $apt -q update >/dev/null
# Only the original source is of use here; its checksum says that it is right.
(cd "$tmp" && apt-get $apt -q source --download-only python3.11) >"$tmp/log" 2>&1 || true
orig=$(ls "$tmp"/python3.11_3.11.2.orig.tar.* 2>/dev/null | grep -v '\.asc$' || true)
if [ -z "$orig" ] || ! echo "$sum  $orig" | sha256sum -c --status; then
	echo "sqlite.sh: the source of CPython 3.11.2 could not be fetched with apt-get source:" >&2
	cat "$tmp/log" >&2
	exit 1
fi
rm -rf "$out"
mkdir -p "$out"
tar -xf "$orig" -C "$out" --strip-components=3 --wildcards '*/Lib/test/test_sqlite3'
