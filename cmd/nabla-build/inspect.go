package main

import (
	"fmt"
	"runtime"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/nabla-build/nabla-build/link"
	"github.com/nabla-build/nabla-build/manifest"
	"github.com/nabla-build/nabla-build/oci/image"
	"github.com/nabla-build/nabla-build/release"
)

// inspected is the JSON form of inspect.
type inspected struct {
	Digest   string             `json:"digest,omitempty"`
	Layers   []inspectedLayer   `json:"layers,omitempty"`
	Manifest *manifest.Manifest `json:"manifest"`
	Report   *link.Report       `json:"report,omitempty"`
}

type inspectedLayer struct {
	Digest    string `json:"digest"`
	Size      int64  `json:"size"` // compressed
	Content   string `json:"content"`
	MediaType string `json:"mediaType"`
}

func (a *app) inspectCommand() *cobra.Command {
	var policy bool
	c := &cobra.Command{
		Use:     "inspect SOURCE|FILE",
		Short:   "Show what a nabla image consists of",
		Long:    "Show the program, layers, sizes and call sites of a nabla image or of a\nself-contained executable. With --policy, show the host system calls that the\ntender of this release permits itself.\n\n" + references,
		Example: "  nabla-build inspect oci:build/nabla\n  nabla-build inspect --json ./app | jq .manifest\n  nabla-build inspect --policy oci:build/nabla",
		Args:    exactly("SOURCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := a.open(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer n.Close()
			if policy {
				return a.policy(cmd.Context(), n)
			}
			return a.inspect(args[0], n)
		},
	}
	c.Flags().BoolVar(&a.json, "json", false, "print JSON, with the whole link report")
	c.Flags().BoolVar(&policy, "policy", false, "print the permitted host system calls")
	return c
}

// content says what a layer holds, by its place.
func content(n *image.Nabla, i int) string {
	switch i {
	case 0:
		return "tender"
	case len(n.Layers) - 1:
		return "manifest"
	}
	return n.Manifest.Archives[i-1].Path
}

func (a *app) inspect(name string, n *image.Nabla) error {
	out := inspected{Digest: n.Digest, Manifest: n.Manifest, Report: n.Report}
	for i, l := range n.Layers {
		d, err := l.Digest()
		if err != nil {
			return err
		}
		size, err := l.Size()
		if err != nil {
			return err
		}
		mt, err := l.MediaType()
		if err != nil {
			return err
		}
		out.Layers = append(out.Layers, inspectedLayer{Digest: d.String(), Size: size, Content: content(n, i), MediaType: string(mt)})
	}
	if a.json {
		return a.printJSON(out)
	}
	m, g := n.Manifest, n.Manifest.Guest
	tw := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	row := func(k, format string, v ...any) { fmt.Fprintf(tw, "%s\t%s\n", k, fmt.Sprintf(format, v...)) }
	row("image", "%s", name)
	if n.Digest != "" {
		row("digest", "%s", n.Digest)
	}
	row("release", "%s", m.Release)
	row("entrypoint", "%q", g.Entrypoint)
	row("cmd", "%q", g.Cmd)
	row("workdir", "%s", g.WorkingDir)
	groups := ""
	if len(g.Groups) > 0 {
		groups = fmt.Sprintf(" groups %v", g.Groups)
	}
	row("user", "%d:%d%s", g.UID, g.GID, groups)
	var ports []string
	for _, p := range m.Ports {
		ports = append(ports, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
	}
	if len(ports) > 0 {
		row("ports", "%s", strings.Join(ports, " "))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout)
	tw = tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "layer\tcompressed\tarchive\tfiles\tsites\trewritten\tleft\t  digest")
	var total link.Sites
	var compressed int64
	line := func(i int, l *inspectedLayer, rep *link.LayerReport, size64 int64, what string) {
		z, files, found, rewritten, left, arch := "", "", "", "", "", ""
		if l != nil {
			z = size(l.Size)
			compressed += l.Size
		}
		if rep != nil {
			files, found, rewritten, left = fmt.Sprint(rep.Files), fmt.Sprint(rep.Sites.Found), fmt.Sprint(rep.Sites.Rewritten), fmt.Sprint(rep.Sites.Left)
			total.Found += rep.Sites.Found
			total.Rewritten += rep.Sites.Rewritten
			total.Left += rep.Sites.Left
		}
		if size64 > 0 {
			arch = size(size64)
		}
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t  %s\n", i, z, arch, files, found, rewritten, left, what)
	}
	report := func(i int) *link.LayerReport {
		if n.Report == nil || i >= len(n.Report.Layers) {
			return nil
		}
		return &n.Report.Layers[i]
	}
	if len(out.Layers) == 0 {
		for i, ar := range m.Archives {
			line(i+1, nil, report(i), ar.Size, ar.Digest)
		}
	}
	for i := range out.Layers {
		l := &out.Layers[i]
		what := l.Digest
		if i == 0 || i == len(out.Layers)-1 {
			line(i+1, l, nil, 0, what+" "+l.Content)
			continue
		}
		line(i+1, l, report(i-1), m.Archives[i-1].Size, what)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout)
	if compressed > 0 {
		fmt.Fprintf(a.stdout, "compressed size: %s\n", size(compressed))
	}
	fmt.Fprintf(a.stdout, "call sites: %d found, %d rewritten, %d left to the trap\n", total.Found, total.Rewritten, total.Left)
	return nil
}

func (a *app) verifyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "verify SOURCE|FILE",
		Short:   "Prove a nabla image again",
		Long:    "Read a nabla image or a self-contained executable and prove that every archive\nhas its digest and a consistent index, that every rewritten object does what the\noriginal does, by a verifier that shares no code with the rewriter, and that the\nprogram can be started.\n\n" + references,
		Example: "  nabla-build verify registry.example.org/app:nabla\n  nabla-build verify --json ./app",
		Args:    exactly("SOURCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := a.open(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer n.Close()
			p, err := n.Verify(cmd.Context())
			if err != nil {
				return fmt.Errorf("verify %s: %w", args[0], err)
			}
			if a.json {
				return a.printJSON(p)
			}
			tender := "the tender is this release's"
			if !p.Tender {
				tender = "the tender is another release's"
			}
			if !a.quiet {
				fmt.Fprintf(a.stdout, "%s: verified: %d archives, %s; %d rewritten objects, %d call sites; %s\n", args[0], p.Archives, size(p.Bytes), p.Objects, p.Sites, tender)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&a.json, "json", false, "print the result as JSON")
	return c
}

func (a *app) versionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, args []string) error {
			v := struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				Schema  int    `json:"manifestSchema"`
				Tender  bool   `json:"tender"`
			}{release.Version, runtime.Version(), manifest.SchemaVersion, true}
			if f, _, err := release.Open(release.Tender); err != nil {
				v.Tender = false
			} else {
				f.Close()
			}
			if a.json {
				return a.printJSON(v)
			}
			fmt.Fprintf(a.stdout, "nabla-build %s (%s, manifest schema %d)\n", v.Version, v.Go, v.Schema)
			if !v.Tender {
				fmt.Fprintln(a.stdout, release.ErrNotBuilt)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return c
}
