#!/bin/sh
# packages.sh: the Debian packages that the demo and the tests use. As root it
# installs what is missing; otherwise it names them.
set -eu
need=""
want() { # want COMMAND PACKAGE
	command -v "$1" >/dev/null 2>&1 || need="$need $2"
}
want mmdebstrap mmdebstrap
want gcc gcc
want strace strace
want runc runc
want dockerd docker.io
want iptables iptables
want ip iproute2
want wrk wrk
want skopeo skopeo
want rootlesskit rootlesskit
want newuidmap uidmap
want openssl openssl
want setpriv util-linux
want python3 python3
want npm npm
want busybox busybox-static
want node nodejs
want musl-gcc musl-tools
want objdump binutils
[ -e /usr/bin/python3.11 ] || need="$need python3.11"
[ -z "$need" ] && exit 0
if [ "$(id -u)" != 0 ]; then
	echo "these Debian packages are missing:$need" >&2
	echo "install them as root: apt-get update && apt-get install -y$need" >&2
	exit 1
fi
echo "installing:$need"
apt-get update -q >/dev/null
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $need >/dev/null
