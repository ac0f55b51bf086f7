#!/usr/bin/env bash
# The test command (`npm test`): tools, types, lint, tests. Every stage runs whatever became of the one before, each
# failed stage counts as one failure, and the last line sums up: `N passed, N failed`, with `, N skipped` if any were.
# Arguments go to ava (`npm test -- test/nbd`).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# npm puts the pinned Node first by itself; a direct call gets it here. Tools in sbin are tests' business too.
export PATH="$PWD/node_modules/.bin:$PATH:/usr/sbin:/sbin"

main() {
  if [[ ! -x node_modules/.bin/ava ]]; then
    echo 'The packages are not installed: run `npm ci` first.' >&2
    return 1
  fi
  local failed=0
  stage tools scripts/install-test-tools.sh || failed=$((failed + 1))
  stage types npm run --silent types || failed=$((failed + 1))
  stage lint npm run --silent lint || failed=$((failed + 1))

  local output
  output=$(mktemp)
  # shellcheck disable=SC2064 # the path as it is now
  trap "rm -f '$output'" EXIT
  heading tests
  local status=0
  run_ava "$output" "$@" || status=$?

  local passed skipped tests_failed
  # Ava counts the passed ones at the end only if none failed; then their lines are counted.
  passed=$(total 'tests? passed' "$output")
  ((passed > 0)) || passed=$(plain "$output" | grep -cE '^ *[✔√] ' || true)
  skipped=$(total 'tests? (skipped|todo)' "$output")
  tests_failed=$(total '(tests?|hooks?) failed|known failures?|unhandled rejections?|uncaught exceptions?|tests? remained' \
    "$output")
  # Whatever ava complains of without counting it (a file that exits, a file without tests) is a failure too.
  if ((status != 0 && tests_failed == 0)); then
    tests_failed=1
  fi
  # Nothing run proves nothing.
  if ((passed == 0 && tests_failed == 0)); then
    tests_failed=1
  fi
  failed=$((failed + tests_failed))

  local line="$passed passed, $failed failed"
  ((skipped == 0)) || line+=", $skipped skipped"
  echo "$line"
  ((failed == 0))
}

# A run that stands still says so, with the processes that are left, instead of being ended by whoever waits for it. Ava's
# own limit (package.json) does not count while a test has a longer one (t.timeout), and then never again.
readonly limit_minutes=${LOCKSTEP_TEST_MINUTES:-40}

# What ava prints goes to the file, and from there to standard output: followed by ava's pid, and not through a pipe, which
# a process that a test left behind would hold open for ever.
run_ava() {
  local output=$1 ava watch status=0
  shift
  timeout --kill-after=30 "$((limit_minutes * 60 + 10))" ava "$@" >"$output" 2>&1 &
  ava=$!
  # shellcheck disable=SC2064 # the pid as it is now; it has a process group of its own
  trap "kill $ava" INT TERM
  (
    trap 'kill "$!"' TERM
    sleep "$((limit_minutes * 60))" &
    wait "$!" || return
    echo "tests: not done after $limit_minutes minutes; what is running:"
    ps --ppid 2 -p 2 --deselect -o pid,ppid,etimes,stat,wchan:20,args --forest | cut -c1-200
  ) &
  watch=$!
  tail --follow --lines=+1 --pid="$ava" "$output" &
  wait "$ava" || status=$?
  wait "$!"
  kill "$watch" 2>/dev/null
  return "$status"
}

heading() {
  printf '\n== %s\n' "$1"
}

stage() {
  local name=$1
  shift
  heading "$name"
  "$@" || {
    echo "$name: failed"
    return 1
  }
}

# Sums the counts of ava's closing lines, such as `  12 tests passed`.
total() {
  plain "$2" | awk -v pattern="^ *[0-9]+ ($1)( |\$)" '$0 ~ pattern { sum += $1 } END { print sum + 0 }'
}

plain() {
  sed 's/\x1b\[[0-9;]*m//g' "$1"
}

main "$@"
