#!/bin/sh
# A server of ours with curl alone: an answer, a stream, and how much of a prompt was cached.
#
#     glm-run serve artifacts/glm4-sample-int4
#     sh examples/server/curl.sh http://127.0.0.1:8080
set -eu
url=${1:?'Usage: sh examples/server/curl.sh URL'}

ask() {
  curl --fail-with-body --silent --show-error --no-buffer "$url/v1/chat/completions" \
    --header 'Content-Type: application/json' --data "$1"
  echo
}

ask '{"messages": [{"role": "user", "content": "Recite Genesis 1:1."}]}'
ask '{"messages": [{"role": "user", "content": "Recite Genesis 1:1."}], "stream": true,
      "stream_options": {"include_usage": true}}'
curl --fail --silent --show-error "$url/metrics" | grep '^glm_cached_tokens_total'
