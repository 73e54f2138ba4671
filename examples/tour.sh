#!/bin/sh
# The whole tour with curl: tour.sh ALICE-1.wav ALICE-2.wav OTHER.wav
set -eu
api="${SAYSO_URL:-http://127.0.0.1:8000}/v1"
call() { curl --silent --show-error --fail-with-body -H "Authorization: Bearer $SAYSO_KEY" "$@"; echo; }

call -H 'Content-Type: application/json' -d '{"id": "example-alice", "groups": ["examples"]}' "$api/speakers"
call -H 'Idempotency-Key: enrol-alice-1' -F audio=@"$1" "$api/speakers/example-alice/enrollments"
call -F audio=@"$2" "$api/speakers/example-alice/verify"
call -F audio=@"$3" "$api/speakers/example-alice/verify"
call -H 'Content-Type: audio/wav' --data-binary @"$2" "$api/identify?group=examples"
call -F audio=@"$1" -F audio=@"$3" "$api/compare"
call -X DELETE "$api/speakers/example-alice"
