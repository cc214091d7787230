# The image of nabla-build's BuildKit frontend.
#
#   docker build -t REGISTRY/nabla-frontend .
#
# BASE is an image with Go 1.26 or newer; make frontend-image makes the same
# without Docker. The result is one program, for linux/amd64.
ARG BASE=golang:1.26-bookworm
FROM --platform=linux/amd64 ${BASE} AS build
ARG VERSION=unknown
WORKDIR /src
ENV CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOTOOLCHAIN=local
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    rm -rf build bin && make VERSION=${VERSION} bin/nabla-frontend

FROM scratch
ARG VERSION=unknown
LABEL moby.buildkit.frontend.network.none="true" \
      moby.buildkit.frontend.caps="moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests,moby.buildkit.frontend.contexts,moby.buildkit.frontend.gitquerystring,moby.buildkit.frontend.contexts.zstd" \
      org.opencontainers.image.title="nabla-build frontend" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /src/bin/nabla-frontend /nabla-frontend
WORKDIR /
USER 65532:65532
ENTRYPOINT ["/nabla-frontend"]
