#!/usr/bin/env bash
# Roll out another number of places for uploads, or another image, and go back if the new pods do not come up.
#
#   deploy/kubernetes/update-max.sh [--dry-run] [--image IMAGE] [N|auto]
#
# N becomes MAX_CONCURRENT_UPLOADS in the ConfigMap. Without N and image the pods are only started anew, one after the
# other, which makes an edited ConfigMap or Secret count. Then it waits, prints the pods and what each said when it
# started ("Max concurrent uploads: N"). If the pods do not become ready in time, say another number, or you press
# Ctrl-C while it waits, ConfigMap and Deployment are put back as they were; exit code 1.
# $NAMESPACE (gauzian), $TIMEOUT (300s: how long one roll-out may take). --dry-run prints the commands and runs none.
set -euo pipefail

NAMESPACE=${NAMESPACE:-gauzian}
TIMEOUT=${TIMEOUT:-300s}
NAME=backend # the Deployment, its container and its ConfigMap

die() {
    echo "update-max.sh: $1" >&2
    exit "${2:-1}"
}

ask() { kubectl --namespace "$NAMESPACE" "$@"; }

run() {
    echo "+ kubectl --namespace $NAMESPACE$(printf ' %q' "$@")"
    if [[ -z $dry_run ]]; then ask "$@"; fi
}

set_places() { run patch configmap "$NAME" --type merge --patch "{\"data\":{\"MAX_CONCURRENT_UPLOADS\":\"$1\"}}"; }

wait_for_pods() { run rollout status "deployment/$NAME" --timeout "$TIMEOUT"; }

# One patch for both: two would be two revisions, and only the last one is undone.
roll_out() {
    local container=''
    if [[ -n $image ]]; then container=",\"spec\":{\"containers\":[{\"name\":\"$NAME\",\"image\":\"$image\"}]}"; fi
    run patch deployment "$NAME" --patch "{\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"kubectl.kubernetes.io/restartedAt\":\"$(date -u +%FT%TZ)\"}}$container}}}"
}

# The pods that are to stay: old ones may still be finishing their uploads.
pods() {
    ask get pods --selector "app=$NAME" \
        --output go-template='{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}}{{"\n"}}{{end}}{{end}}'
}

show_what_they_said() {
    local names pod line wrong=0
    names=$(pods)
    [[ -n $names ]] || die 'no pod is there'
    for pod in $names; do
        line=$(ask logs "$pod" --container "$NAME" --limit-bytes 200000 | grep -o -m 1 'Max concurrent uploads: [0-9]*' || true)
        echo "$pod: ${line:-says nothing (LOG_LEVEL hides it?)}"
        if [[ -n $line && $places =~ ^[0-9]+$ && $line != *" $places" ]]; then wrong=1; fi
    done
    return "$wrong"
}

roll_back() {
    trap - EXIT INT TERM
    echo "update-max.sh: it did not work; back to what was there (revision $revision)" >&2
    ask get pods --selector "app=$NAME" --output wide >&2 || true
    if [[ -n $places ]]; then set_places "$places_before" >&2 || true; fi
    run rollout undo "deployment/$NAME" --to-revision "$revision" >&2 &&
        wait_for_pods >&2 ||
        echo 'update-max.sh: going back did not work either; have a look yourself' >&2
    exit 1
}

dry_run='' image='' places=''
while (($#)); do
    case $1 in
        --dry-run) dry_run=1 ;;
        --image)
            image=${2:-}
            [[ $image =~ ^[a-zA-Z0-9][a-zA-Z0-9./:@_-]*$ ]] || die "--image wants an image, not '$image'" 2
            shift
            ;;
        auto) places=auto ;;
        *)
            [[ $1 =~ ^([1-9][0-9]{0,3}|10000)$ ]] || die "a number from 1 to 10000, or auto; not '$1'" 2
            places=$1
            ;;
    esac
    shift
done
command -v kubectl >/dev/null || [[ -n $dry_run ]] || die 'kubectl is not there'

revision='of before' places_before='of before'
if [[ -z $dry_run ]]; then
    revision=$(ask get deployment "$NAME" --output 'jsonpath={.metadata.annotations.deployment\.kubernetes\.io/revision}')
    places_before=$(ask get configmap "$NAME" --output 'jsonpath={.data.MAX_CONCURRENT_UPLOADS}')
    [[ -n $revision && -n $places_before ]] || die "namespace $NAMESPACE has no deployment and ConfigMap '$NAME' of ours"
    trap roll_back EXIT
    trap 'exit 1' INT TERM
fi
if [[ -n $places ]]; then set_places "$places"; fi
roll_out
wait_for_pods
run get pods --selector "app=$NAME" --output wide
if [[ -z $dry_run ]]; then show_what_they_said; fi
trap - EXIT
if [[ -n $places && -z $dry_run ]]; then
    echo "Write it into deploy/kubernetes/base/configmap.yaml too: the next kubectl apply puts $places_before back otherwise."
fi
