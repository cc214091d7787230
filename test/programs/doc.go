// Package programs runs unmodified Debian programs on real work, natively and
// in a nabla image of the same root file system, and compares what they say:
// nginx, redis-server, sqlite3, curl, busybox, bash. The tests carry the build
// tag integration and need root (for chroot) and make build/images/programs.
package programs
