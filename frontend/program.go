package frontend

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"mvdan.cc/sh/v3/syntax"
)

// forkDetail is what a client shows with a warning about fork.
const forkDetail = "A nabla image is one process: fork fails with ENOSYS there. docs/frontend.md of nabla-build says what to do instead."

// A rule is a warning about something in a Dockerfile that works in a container
// but not in a nabla image.
type rule struct {
	name, description string
}

var (
	ruleShell   = rule{"NablaShellForks", "A shell that starts more than one program needs fork"}
	ruleProgram = rule{"NablaProgramForks", "A program that starts other processes needs fork"}
)

// finding is what a rule found.
type finding struct {
	rule
	message string
	at      []parser.Range
}

// checkProgram warns about a program that needs fork.
func (b *build) checkProgram(ctx context.Context, c v1.Config) {
	for _, f := range b.findings(slices.Concat(c.Entrypoint, c.Cmd)) {
		line := 0
		if len(f.at) > 0 {
			line = f.at[0].Start.Line
		}
		b.warn(ctx, linter.LintFormatShort(f.name, f.message, line), f.description+". "+forkDetail, "", f.at)
	}
}

// findings are those about the command line of the image's program.
func (b *build) findings(argv []string) []finding {
	var at []parser.Range
	if b.options.entrypoint == nil {
		if at = b.file.where(b.target(), "ENTRYPOINT"); at == nil {
			at = b.file.where(b.target(), "CMD")
		}
	}
	r, message := forks(argv)
	if message == "" {
		return nil
	}
	return []finding{{r, message, at}}
}

// forking are programs that are of no use without child processes, and what
// to run instead.
var forking = map[string]string{
	"supervisord": "run one service in an image", "s6-svscan": "run one service in an image", "runsvdir": "run one service in an image",
	"systemd": "run one service in an image", "init": "run the service itself", "tini": "run the service itself: it is the only process",
	"dumb-init": "run the service itself: it is the only process", "gunicorn": "run an ASGI or threaded server of one process",
	"postgres": "use a database in a container of its own", "apachectl": "use a server of one process with threads", "httpd": "use a server of one process with threads", "apache2": "use a server of one process with threads",
	"php-fpm": "use a server of one process with threads", "sshd": "there is no shell to log in to", "crond": "run one job an instance", "cron": "run one job an instance",
}

// forks says why a command line needs fork; an empty message if nothing is
// known of it.
func forks(argv []string) (rule, string) {
	if len(argv) == 0 {
		return rule{}, ""
	}
	name := path.Base(argv[0])
	switch name {
	case "sh", "bash", "dash", "ash":
		if len(argv) >= 3 && argv[1] == "-c" {
			if why := shellForks(argv[2]); why != "" {
				return ruleShell, fmt.Sprintf("%s, which needs fork; name one program in exec form, or end with exec", why)
			}
		}
		return rule{}, ""
	case "nginx":
		if !strings.Contains(strings.Join(argv, " "), "master_process off") {
			return ruleProgram, `nginx starts worker processes, which needs fork; run it with -g "daemon off; master_process off;"`
		}
		return rule{}, ""
	}
	if instead, ok := forking[name]; ok {
		return ruleProgram, fmt.Sprintf("%s starts other processes, which needs fork; %s", name, instead)
	}
	return rule{}, ""
}

// builtins are commands that a shell carries out itself.
var builtins = []string{".", ":", "[", "alias", "break", "cd", "command", "continue", "echo", "eval", "exec", "exit", "export", "false",
	"getopts", "hash", "local", "printf", "pwd", "read", "readonly", "return", "set", "shift", "source", "test", "times", "trap", "true",
	"type", "ulimit", "umask", "unalias", "unset"}

// shellForks says what a script given to sh -c needs fork for; "" if for
// nothing. The last command, where it is a simple one, is executed in place of
// the shell.
func shellForks(script string) string {
	f, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(script), "")
	if err != nil {
		return "" // the shell will say so
	}
	last := lastCommand(f.Stmts)
	why := ""
	say := func(format string, a ...any) {
		if why == "" {
			why = fmt.Sprintf(format, a...)
		}
	}
	syntax.Walk(f, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Stmt:
			if n.Background || n.Coprocess {
				say("the shell runs a command in the background")
			}
		case *syntax.BinaryCmd:
			if n.Op == syntax.Pipe || n.Op == syntax.PipeAll {
				say("the shell makes a pipe between programs")
			}
		case *syntax.Subshell:
			say("the shell runs a subshell")
		case *syntax.CmdSubst, *syntax.ProcSubst:
			say("the shell substitutes a command's output")
		case *syntax.CallExpr:
			if len(n.Args) == 0 || n == last {
				break
			}
			if name := n.Args[0].Lit(); !slices.Contains(builtins, name) {
				say("the shell starts %q before its last command", name)
			}
		}
		return true
	})
	return why
}

// lastCommand is the simple command that a shell ends with; nil if it ends with
// something else.
func lastCommand(list []*syntax.Stmt) *syntax.CallExpr {
	if len(list) == 0 {
		return nil
	}
	switch c := list[len(list)-1].Cmd.(type) {
	case *syntax.CallExpr:
		return c
	case *syntax.BinaryCmd:
		if c.Op == syntax.AndStmt || c.Op == syntax.OrStmt {
			return lastCommand([]*syntax.Stmt{c.Y})
		}
	case *syntax.Block:
		return lastCommand(c.Stmts)
	case *syntax.IfClause:
		return nil
	}
	return nil
}

// lint is docker buildx build --call=check: BuildKit's rules and ours.
func (b *build) lint(ctx context.Context) (*lint.LintResults, error) {
	res, err := dockerfile2llb.DockerfileLint(ctx, b.src.Data, b.convert)
	if err != nil || res.Error != nil {
		return res, err
	}
	quiet := b.convert
	quiet.Warn = nil
	src, err := dockerfile2llb.Dockerfile2LLB(ctx, b.src.Data, quiet)
	if err != nil {
		return res, nil // for want of a target or a build argument: not lint's
	}
	source := len(res.Sources) - 1
	for _, f := range b.findings(slices.Concat(src.Image.Config.Entrypoint, src.Image.Config.Cmd)) {
		res.AddWarning(f.name, f.description, "", f.message, source, f.at)
	}
	return res, nil
}
