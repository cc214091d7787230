// Package integration runs the Python sample image as people would: with
// nabla-build run, runc and docker. The tests need what make builds: run them
// with make test (build tag integration).
package integration
