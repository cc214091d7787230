#!/bin/sh
# build.sh CONTEXT IMAGE [FLAG...]: build a Dockerfile to a nabla image and push
# it, as an ordinary user, with a BuildKit daemon that lives for this build only.
#
# Needs nabla-build, buildkitd, rootlesskit, newuidmap (package uidmap), runc, and
# a range of user and group ids in /etc/subuid and /etc/subgid. FRONTEND is the
# image of the nabla frontend. BUILDKIT_STATE, a directory, keeps the daemon's cache from
# one build to the next. FLAGs are those of nabla-build build.
set -eu
context=${1:?usage: build.sh CONTEXT IMAGE [FLAG...]}
image=${2:?usage: build.sh CONTEXT IMAGE [FLAG...]}
shift 2
: "${FRONTEND:?set it to the name of the nabla frontend image}"

run=$(mktemp -d)
state=${BUILDKIT_STATE:-$run/state}
mkdir -p "$state" "$run/xdg"
chmod 700 "$run/xdg"
socket=unix://$run/buildkitd.sock

stop() {
	status=$?
	trap - EXIT INT TERM
	if ! kill "$daemon" 2>/dev/null; then
		echo "build.sh: buildkitd has ended:" >&2
		tail -20 "$run/log" >&2
	fi
	wait "$daemon" 2>/dev/null || true
	# The daemon's files belong to ids of the user namespace: remove them in one.
	rootlesskit --state-dir="$run/rm" rm -rf "$run/state" 2>/dev/null || true
	rm -rf "$run"
	exit "$status"
}

# --net=host: build steps use this machine's network; give rootlesskit
# --net=slirp4netns --copy-up=/etc to keep them from its loopback address.
# --oci-worker-no-process-sandbox: inside containers /proc cannot be mounted.
# buildkitd looks at USER to see that it runs without rights.
USER=$(id -un) XDG_RUNTIME_DIR=$run/xdg rootlesskit --state-dir="$run/rootlesskit" --net=host \
	buildkitd --addr "$socket" --root "$state" --config /dev/null \
	--containerd-worker=false --oci-worker-no-process-sandbox >"$run/log" 2>&1 &
daemon=$!
trap stop EXIT INT TERM

tries=0
until [ -S "$run/buildkitd.sock" ]; do
	tries=$((tries + 1))
	if ! kill -0 "$daemon" 2>/dev/null || [ "$tries" -gt 300 ]; then
		echo "build.sh: buildkitd did not start within 30 s" >&2
		exit 1
	fi
	sleep 0.1
done

nabla-build build --builder "$socket" --frontend "$FRONTEND" --progress plain -t "$image" --push "$@" "$context"
