// Package node runs Node.js programs, one for each of the things that people use
// Node.js for, natively and in a nabla image of the same root: an official build
// and Debian's. The tests are behind the build tag integration; docs/node.md and
// docs/conformance.md say more.
package node
