package rumprun

func (k *Kernel) bootNetwork() error               { return nil }
func (t *Task) loadFirst(argv, env []string) error { return nil }
