// Package fuzzcalls runs a guest (c/fuzzcalls.c) that makes random system calls
// with random and hostile arguments, and judges what the library OS makes of
// it: it must not panic, hang, or call what its filter forbids. make test runs
// it for half a minute, make fuzz for ten minutes (build tag integration).
package fuzzcalls
