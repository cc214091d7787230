// Package conformance runs small Linux programs natively and in a nabla image:
// the Linux kernel is the oracle, so the outputs must be equal. The tests need
// what make builds: run them with make test (build tag integration).
package conformance
