#!/bin/sh
# certificates.sh DIR HOST...: an authority, a certificate for a BuildKit daemon
# that clients reach as one of the HOSTs (names or IPv4 addresses), and one for
# its clients. Needs openssl. DIR then holds ca.pem, server.pem, server-key.pem,
# client.pem, client-key.pem; ca-key.pem signs further clients: keep it
# elsewhere, or remove it.
set -eu
dir=${1:?usage: certificates.sh DIR HOST...}
shift
: "${1:?usage: certificates.sh DIR HOST...}"
umask 077
mkdir -p "$dir"
names=
for host; do
	case $host in
	*[!0-9.]*) names=$names,DNS:$host ;;
	*) names=$names,IP:$host ;;
	esac
done
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$dir/$1-key.pem" 2>/dev/null; }
sign() { # sign NAME USAGE [SAN]
	key "$1"
	openssl req -new -key "$dir/$1-key.pem" -subj "/CN=buildkit $1" -out "$dir/$1.csr"
	{
		echo "keyUsage = digitalSignature"
		echo "extendedKeyUsage = $2"
		[ -z "${3-}" ] || echo "subjectAltName = $3"
	} >"$dir/$1.ext"
	openssl x509 -req -in "$dir/$1.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca-key.pem" -CAcreateserial \
		-days 365 -extfile "$dir/$1.ext" -out "$dir/$1.pem" 2>/dev/null
	rm "$dir/$1.csr" "$dir/$1.ext"
}
key ca
openssl req -x509 -new -key "$dir/ca-key.pem" -subj "/CN=buildkit authority" -days 3650 \
	-addext "keyUsage = critical,keyCertSign" -out "$dir/ca.pem"
sign server serverAuth "${names#,}"
sign client clientAuth
