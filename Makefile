# make demo   builds, makes certificates, starts server and agent, shows live events
# make test   the whole test suite, without root, in under ten minutes
# make help   the other targets

SHELL       := /bin/bash
.SHELLFLAGS := -o pipefail -c

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
PKG     := github.com/rea-agent/rea
LDFLAGS := -s -w -X $(PKG)/internal/cli.version=$(VERSION) -X $(PKG)/internal/cli.commit=$(COMMIT)
# Both sides speak HTTP/1.1 only; without HTTP/2 half a megabyte less is resident.
TAGS    := nethttpomithttp2
BUILD   := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -tags $(TAGS) -ldflags '$(LDFLAGS)'

BENCHTIME         ?= 1s
FOOTPRINT_SECONDS ?= 60

# The race detector needs a C compiler; CI always has one.
RACE    := $(shell command -v $$($(GO) env CC) >/dev/null 2>&1 && echo -race)

LINT    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: help build demo test test-windows torture torture-long hostile cross check lint bench dictionary packages windows-program clean

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## both binaries into bin/: static, stripped, reproducible
	$(BUILD) -o bin/ ./cmd/rea-agent ./cmd/rea-server

demo: build ## server and agent over mTLS on this machine, with live events; Ctrl-C ends it
	@scripts/demo.sh

test: ## the whole suite, with the race detector where a C compiler is present
	@test -n "$(RACE)" || echo "SKIP  race detector: no C compiler ($$($(GO) env CC)) on this machine"
	@$(GO) build -o bin/report ./test/report
	$(if $(RACE),CGO_ENABLED=1) $(GO) test $(RACE) -json -count 1 -timeout 9m ./... | bin/report $(REPORT)

test-windows: ## the suite for Windows, under Wine 10 of Debian's packages, which it installs; wants root
	@test/windows/setup.sh >/dev/null
	@$(GO) build -o bin/report ./test/report
	GOOS=windows CGO_ENABLED=0 $(GO) test -exec "$(CURDIR)/test/windows/exec.sh" -json -count 1 -timeout 9m ./cmd/... ./internal/... ./test/... | bin/report
	$(GO) test -tags wine -json -count 1 -timeout 15m -p 1 ./test/windows/... | bin/report

# What the torture bench does: histories that are simulated, kills, power cuts.
# A seed of 0 draws one, and prints it.
HISTORIES ?= 200000
SEED      ?= 0
KILLS     ?= 500
CUTS      ?= 200
ONLY      ?= .

torture: ## crashes, kills, power cuts, failing disks, planted bugs, and a table of it; some want root
	@$(GO) build -o bin/torture ./test/torture
	@bin/torture -histories $(HISTORIES) -seed $(SEED) -kills $(KILLS) -cuts $(CUTS) -run "$(ONLY)"

torture-long: ## the same for a night: 10 million histories, 10,000 kills, 2,000 power cuts
	$(MAKE) torture HISTORIES=10000000 KILLS=10000 CUTS=2000

# How many hostile requests, and how often honest agents are timed beside 1,000
# slow clients.
REQUESTS ?= 100000
ROUNDS   ?= 5

hostile: ## bombs, broken requests and slow clients against the real server: what each costs it
	$(GO) test -count 1 -timeout 2h -v -tags hostile ./test/hostile -hostile.requests $(REQUESTS) -hostile.rounds $(ROUNDS)

cross: ## compile for the other systems
	@for target in windows/amd64 windows/arm64 linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do \
	  echo "build $$target"; \
	  GOOS=$${target%/*} GOARCH=$${target#*/} $(BUILD) -o dist/$${target%/*}-$${target#*/}/ ./cmd/rea-agent ./cmd/rea-server || exit 1; \
	done

check: ## formatting, go vet for every system, a build that is the same twice
	@test -z "$$(gofmt -l cmd internal packaging test)" || { echo "gofmt would change:"; gofmt -l cmd internal packaging test; exit 1; }
	@for os in linux windows darwin; do echo "vet $$os"; GOOS=$$os CGO_ENABLED=0 $(GO) vet ./... || exit 1; done
	$(GO) vet -tags torture,hostile ./test/...
	$(GO) mod verify
	$(GO) mod tidy -diff
	@scripts/reproducible.sh

# The packages whose files are others on Windows; the linter looks at them as Windows too.
FILES  := list -f '{{.ImportPath}} {{.GoFiles}} {{.TestGoFiles}} {{.XTestGoFiles}}' ./...
DIFFER := comm -13 <($(GO) $(FILES) | sort) <(GOOS=windows CGO_ENABLED=0 $(GO) $(FILES) | sort) | sed 's,^$(PKG)\([^ ]*\) .*,.\1,'

lint: ## golangci-lint with .golangci.yml (compiles the linter the first time)
	$(GO) run $(LINT) run ./...
	$(GO) run $(LINT) run --build-tags torture,wine ./test/...
	$(GO) run -exec 'env GOOS=windows CGO_ENABLED=0' $(LINT) run $$($(DIFFER))

bench: build ## micro-benchmarks, what the whole agent costs, what a million events cost
	$(GO) test -run '^$$' -bench . -benchtime $(BENCHTIME) -benchmem ./internal/...
	$(GO) run ./test/footprint -bin bin -seconds $(FOOTPRINT_SECONDS)
	$(GO) run ./test/path

# One that was shipped is never changed: docs/decisions/0016.
ID ?= 59906

dictionary: ## train a new zstd dictionary from the golden events, ID=59906
	$(GO) run ./test/dictionary -id $(ID) -o internal/wire/dictionary-$(ID)

packages: ## .msi, .zip and manifests for Windows into dist/packages; signed with SIGN_CERT: docs/packaging.md
	packaging/windows/build.sh $(VERSION)
	packaging/windows/check.sh $(VERSION)

windows-program: # one program for build.sh, with the same flags as all others
	GOOS=windows GOARCH=$(ARCH) $(BUILD) -o $(OUT)/$(NAME).exe ./cmd/$(NAME)

clean: ## remove what was built and the demo
	rm -rf bin dist demo
