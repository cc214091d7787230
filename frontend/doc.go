// Package frontend is a BuildKit gateway frontend: it builds a Dockerfile as the
// stock frontend does, in the same packages of BuildKit, and then relinks the
// result by steps of the same build that run the frontend's own image
// (frontend/step). docs/frontend.md describes it. It may import oci/image and
// BuildKit; the function at its heart is Build.
package frontend
