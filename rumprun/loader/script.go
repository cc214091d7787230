package loader

import "bytes"

// HeadSize is how much of a file decides what it is (BINPRM_BUF_SIZE).
const HeadSize = 256

// Script returns the interpreter and the optional argument that the first line
// of a script names, as fs/binfmt_script.c reads it: ok is false if head (the
// first HeadSize bytes of the file, or all of it) is not that of a script.
// Everything behind the interpreter is one argument; a line that is longer than
// HeadSize must have the interpreter's name in it whole.
func Script(head []byte) (interp, arg string, ok bool) {
	if len(head) < 2 || head[0] != '#' || head[1] != '!' {
		return "", "", false
	}
	var buf [HeadSize]byte
	copy(buf[:], head)
	line := buf[2 : HeadSize-1]
	if i := bytes.IndexByte(buf[2:], '\n'); i >= 0 {
		line = buf[2 : 2+i]
	} else if name := bytes.TrimLeft(line, " \t"); bytes.IndexAny(name, " \t\x00") < 0 {
		return "", "", false // the name may be cut off
	}
	line = bytes.Trim(line, " \t")
	i := bytes.IndexAny(line, " \t\x00")
	if i < 0 {
		i = len(line)
	}
	name, rest := line[:i], line[i:]
	if len(name) == 0 {
		return "", "", false
	}
	if len(rest) > 0 && rest[0] != 0 {
		rest = bytes.TrimLeft(rest, " \t")
		rest, _, _ = bytes.Cut(rest, []byte{0})
	} else {
		rest = nil
	}
	return string(name), string(rest), true
}
