// TEMPORARY, so that the tree builds: whoever lands the real thing deletes this
// file (or the part of it that it replaces).

package rumprun

func (k *Kernel) bootNetwork() error { return nil }
