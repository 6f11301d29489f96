#!/usr/bin/env bash
# Build the image and push it, under a tag that names its version and its commit.
#
#   deploy/push_docker_hub.sh [--dry-run] [REPOSITORY]
#
# REPOSITORY as in docker.io/somebody/gauzian; without it $IMAGE is taken. Signing in is yours (docker login).
# $ENGINE: docker or podman; without it whichever is there, docker first. --dry-run prints the commands and runs none.
set -euo pipefail
cd "$(dirname "$0")/.."

# What ends up in the image: if this is not what the commit holds, the tag would lie.
CONTENTS=(.dockerignore Containerfile app.py gauzian migrations requirements.txt)

die() {
    echo "push_docker_hub.sh: $1" >&2
    exit "${2:-1}"
}

run() {
    echo "+$(printf ' %q' "$@")"
    if [[ -z $dry_run ]]; then "$@"; fi
}

dry_run='' repository=${IMAGE:-}
for word in "$@"; do
    case $word in
        --dry-run) dry_run=1 ;;
        -*) die "unknown option $word; see the head of this file" 2 ;;
        *) repository=$word ;;
    esac
done
[[ -n $repository ]] || die 'which repository? As in: push_docker_hub.sh docker.io/somebody/gauzian' 2
[[ ${repository##*/} != *[:@]* ]] || die "$repository: without a tag; that comes from version and commit" 2

engine=${ENGINE:-}
for candidate in docker podman; do
    if [[ -z $engine ]] && command -v "$candidate" >/dev/null; then engine=$candidate; fi
done
[[ -n $engine ]] || die 'neither docker nor podman is there'

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' gauzian/__init__.py)
[[ -n $version ]] || die 'gauzian/__init__.py names no version'
commit=$(git rev-parse --short=12 HEAD)
changed=$(git status --porcelain -- "${CONTENTS[@]}")
[[ -z $changed ]] || die "commit this first, the tag would not say what is in the image:
$changed"
image=$repository:$version-$commit

build=(build --file Containerfile --tag "$image"
    --build-arg "VERSION=$version" --build-arg "REVISION=$(git rev-parse HEAD)")
case ${engine##*/} in
    podman) build+=(--format docker) ;; # its own format has no HEALTHCHECK
    *) export DOCKER_BUILDKIT=1 ;;      # older ones do not know RUN --mount without
esac
run "$engine" "${build[@]}" .
run "$engine" push "$image"
echo "$image"
