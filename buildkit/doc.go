// Package buildkit runs a Dockerfile build on a BuildKit daemon with the nabla
// frontend: the work of nabla-build build. It is a client only: what the build
// does is the frontend's, which runs in the daemon. At its heart is Build,
// which takes Options in the words of docker buildx's flags, and a Daemon to do
// it on. It may import the client packages of BuildKit and of Docker.
package buildkit
