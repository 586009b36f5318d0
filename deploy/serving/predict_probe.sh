#!/bin/bash
# Ask the model server on this machine for one prediction: predict_probe.sh ready|live MODEL [REST_PORT]
#
# A probe has to predict: TensorFlow Serving says AVAILABLE of a model that it cannot run, for example one whose
# operations its build does not hold. Kubernetes' httpGet cannot POST and the CPU image has no curl, but both have bash,
# whose /dev/tcp is enough. The text of the probe is counted like any other, so quiet servers see it in their label counts.
#
# ready: exit 0 if the answer is 200. live: also if the server says that it is full (429, 503): starting it anew would
# throw away the work that it has. The answer's first line goes to standard output, where `kubectl describe` shows it.
set -u
purpose="${1:?ready or live}"
model="${2:?the name of the model}"
port="${3:-8501}"
body='{"instances": ["a probe asks whether the model predicts"]}'

exec 3<>"/dev/tcp/127.0.0.1/${port}" || exit 1
printf '%s\r\n' >&3 \
    "POST /v1/models/${model}:predict HTTP/1.1" \
    "Host: 127.0.0.1" "Content-Type: application/json" "Content-Length: ${#body}" "Connection: close" ""
printf '%s' "${body}" >&3
IFS=' ' read -r -t 8 protocol status reason <&3 || { echo "no answer within 8 seconds"; exit 1; }
echo "${protocol} ${status} ${reason%$'\r'}"
case "${purpose} ${status}" in
    "ready 200" | "live 200" | "live 429" | "live 503") exit 0 ;;
    *) exit 1 ;;
esac
