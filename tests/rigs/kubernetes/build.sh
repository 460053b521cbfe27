#!/usr/bin/env bash
# Builds the servers of Kubernetes, kwok (nodes), Kueue, JobSet and KubeRay from their published Go modules into a cache
# folder, once. Versions and sums are pinned: those of Kubernetes by v*/go.mod and go.sum, the others here. Twenty minutes
# on 2 cores.
#
#   tests/rigs/kubernetes/build.sh [MINOR] [FOLDER]     default: 1.33, $XDG_CACHE_HOME/powerhall/kubernetes
set -euo pipefail
cd "$(dirname "$0")"
minor=${1:-1.33}
into=${2:-${XDG_CACHE_HOME:-$HOME/.cache}/powerhall/kubernetes}/$minor
command -v go >/dev/null || { echo "build.sh: go is not installed" >&2; exit 1; }
[ -f "v$minor/go.mod" ] || { echo "build.sh: no Kubernetes $minor; there are: $(echo v*)" >&2; exit 1; }
mkdir -p "$into"

publish() { # PROGRAM...: into the cache at once, so that half a build is none
  for program; do mv "$into/new/$program" "$into/$program"; done
}
module() { # MODULE VERSION SUM [FOLDER]: the command in a folder of a module whose content has this sum
  local program seen told at
  program=$(basename "${4:-$1}")
  [ -x "$into/$program" ] && return
  told=$(go mod download -json "$1@$2")
  seen=$(sed -n 's/^\t"Sum": "\(.*\)",$/\1/p' <<<"$told")
  [ "$seen" = "$3" ] || { echo "build.sh: $1@$2 has sum $seen, not $3" >&2; exit 1; }
  at=$(sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' <<<"$told")
  # with the module's own go.mod and go.sum, as `go install` would not
  mkdir -p "$into/new"
  (cd "$at" && go build -mod=readonly -ldflags "-s -w" -o "$into/new/$program" "./${4:-}")
  publish "$program"
}

servers=(kube-apiserver kube-controller-manager kube-scheduler)
missing=0
for program in "${servers[@]}"; do [ -x "$into/$program" ] || missing=1; done
if [ "$missing" = 1 ]; then
  version=$(sed -n 's/^require k8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' "v$minor/go.mod")
  # Kueue refuses a server that calls itself v0.0.0-master
  (cd "v$minor" && go build -mod=readonly -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" \
    -o "$into/new/" "${servers[@]/#/k8s.io/kubernetes/cmd/}")
  publish "${servers[@]}"
fi
module sigs.k8s.io/kwok v0.8.0 h1:OTIOTwgROqPMovcTwxICx2eYQ4AwLpSx5EpjbDKF4SQ= cmd/kwok
module sigs.k8s.io/kueue v0.17.0 h1:7hzb38M4eKGzYW+CFv2s1L+swzzacUCHOCXxZmAV90I= cmd/kueue
module sigs.k8s.io/jobset v0.11.1 h1:WgLEBnXTeX+4MxfVkIbfm4jIVgjvIY6Jfaei2okxKNk=
module github.com/ray-project/kuberay/ray-operator v1.6.0 h1:1hs7Di2U/vm09ot7MIU8jUqEo7gHDc4gkbv1eFvqCsQ=
rm -rf "$into/new"
echo "$into"
