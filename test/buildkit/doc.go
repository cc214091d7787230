// Package buildkit tests nabla-build with real BuildKit daemons: a Docker
// Engine's and buildkitd's, with a registry beside them. make test-buildkit
// runs it; make test runs its short form.
package buildkit
