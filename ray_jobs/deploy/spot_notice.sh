#!/bin/bash
# Runs on each GPU machine of cluster.yaml: hands Google's notice that this spot machine is taken away on to Ray, which by
# itself does not hear it. The folds here then save where they are and go on elsewhere.
#
# usage: spot_notice.sh HEAD:PORT
# METADATA: another address of Google's metadata server, NODE_ID: this node's id in Ray (both for tests).
set -u
metadata=${METADATA:-http://metadata.google.internal}
# The server answers when the value changes, or after a while. It is FALSE for ever on machines that are not spot.
until [ "$(curl -sf -H 'Metadata-Flavor: Google' "$metadata/computeMetadata/v1/instance/preempted?wait_for_change=true")" = TRUE ]; do
    sleep 1
done
echo "$(date): this machine is taken away"
export RAY_ADDRESS=$1 # by which Ray finds out which node this is
exec ray drain-node --address="$1" ${NODE_ID:+--node-id="$NODE_ID"} --reason=DRAIN_NODE_REASON_PREEMPTION --reason-message="spot machine taken back" \
    --deadline-remaining-seconds=25
