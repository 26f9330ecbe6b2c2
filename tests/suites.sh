# The test suites, sourced by ./run. Each suite is a function suite_<name>; LONG=1 asks for the long counts.
# shellcheck shell=bash

NORMAL_SUITES=(rust mutants plugins e2e pipelines tables examples clients kafka librdkafka transactions kill powercut exactly_once streams kafka_streams)
# Run when named or with --long only.
LONG_SUITES=()
LIBRARIES=(-p pelton-wire -p pelton-commitlog -p pelton-partitioner -p pelton-partitions -p pelton-coordinators -p pelton-streams -p pelton-pipelines -p pelton-tables -p pelton-state -p pelton-wasm -p pelton-outbound -p pelton-broker)

lint() {
  cargo fmt --all --check
  tests/imports.py runtime sdk runtime/{broker,commitlog,coordinators,partitioner,partitions,pipelines,state,wasm,wire}
  # All at once and in the product's own profile, so that dependencies are checked once and librdkafka is built once.
  cargo clippy --locked --release "${LIBRARIES[@]}" -p pelton-sdk -p pelton -p pelton-tests -p pelton-benches --all-targets -- -D warnings
}

suite_rust() {
  cargo test --locked "${LIBRARIES[@]}" -p pelton-sdk
  [ "${LONG:-0}" != 1 ] || PELTON_SIM_RUNS=${PELTON_SIM_RUNS:-20000} cargo test --locked "${LIBRARIES[@]}" -p pelton-sdk --test sim -- --nocapture
  # 300 kills of pipelines over RocksDB.
  [ "${LONG:-0}" != 1 ] || PELTON_STORE_RUNS=${PELTON_STORE_RUNS:-12} cargo test --locked "${LIBRARIES[@]}" -p pelton-sdk --test kills -- --nocapture
  # The binary, and what the end-to-end tests and the benches judge with.
  cargo test --locked --release -p pelton -p pelton-tests -p pelton-benches --lib --bins
}

# Bugs that are built in on purpose: tests must find them. LONG=1: each against every test of the table.
suite_mutants() { tests/mutants.py; }

suite_plugins() { plugins/test.sh; }
suite_e2e() { cargo test --locked --release -p pelton-tests --test e2e --test older; }
suite_pipelines() {
  # Plugins of each language and world.
  local languages=; [ "${LONG:-0}" = 1 ] && languages=all
  # Some fifty swaps and rollbacks.
  [ "${LONG:-0}" != 1 ] || export PELTON_SWAP_KILLS=${PELTON_SWAP_KILLS:-12}
  PELTON_LANGUAGES=${PELTON_LANGUAGES:-$languages} cargo test --locked --release -p pelton-tests --test pipelines
}
suite_tables() {
  local kills=5; [ "${LONG:-0}" = 1 ] && kills=100
  PELTON_TABLE_KILLS=${PELTON_TABLE_KILLS:-$kills} cargo test --locked --release -p pelton-tests --test tables
}
suite_examples() { local d; for d in examples/[0-9]*/run.sh; do say "== $d"; "$d"; done; }
suite_clients() { setup_test; tests/run_clients.sh; }
suite_kafka() {
  setup_test; tests/oracle/setup.sh
  tests/oracle/compare.py
  tests/oracle/tools.py
  local seeds=1; [ "${LONG:-0}" = 1 ] && seeds=12
  # shellcheck disable=SC2046
  tests/oracle/compaction.py $(seq "$seeds")
  [ "${LONG:-0}" = 1 ] || return 0
  tests/clients/setup.sh python
  "$PELTON_CACHE/clients/python/bin/python" tests/oracle/adopt.py
}
suite_librdkafka() { setup_test; if [ "${LONG:-0}" = 1 ]; then tests/librdkafka/run.sh long; else tests/librdkafka/run.sh normal; fi; }
suite_kill() {
  local program=(cargo test --locked --release -p pelton-tests --test kill -- --nocapture) os=10
  [ "${LONG:-0}" = 1 ] && os=100
  PELTON_KILLS=${PELTON_KILLS:-50} "${program[@]}"
  # Who is not told of the sync loses nothing by a kill.
  PELTON_KILLS=$os PELTON_SET=pelton.durability=os "${program[@]}"
}
suite_transactions() {
  # franz-go speaks the newer protocol; librdkafka, which speaks the older, is built with the tests.
  setup_test; tests/clients/setup.sh franz
  local count=100; [ "${LONG:-0}" = 1 ] && count=3000
  PELTON_TRANSACTIONS=${PELTON_TRANSACTIONS:-$count} cargo test --locked --release -p pelton-tests --test transactions -- --nocapture
}
suite_powercut() {
  # The rig first: without syncs these cuts must find losses, mostly the first one does.
  PELTON_CUTS=40 PELTON_SET=pelton.durability=os PELTON_EXPECT=loss cargo test --locked --release -p pelton-tests --test powercut -- --nocapture
  local cuts=100; [ "${LONG:-0}" = 1 ] && cuts=5000
  PELTON_CUTS=${PELTON_CUTS:-$cuts} cargo test --locked --release -p pelton-tests --test powercut -- --nocapture
}
suite_exactly_once() {
  local program=(cargo test --locked --release -p pelton-tests --test exactly_once -- --nocapture)
  local kills=30 cuts=30; [ "${LONG:-0}" = 1 ] && { kills=300; cuts=500; }
  # The judge first: what a disk forgets must be found.
  "${program[@]}" forgets
  PELTON_KILLS=${PELTON_KILLS:-$kills} "${program[@]}" kills
  PELTON_CUTS=${PELTON_CUTS:-$cuts} "${program[@]}" cuts
}
suite_streams() {
  setup_test; tests/clients/setup.sh python java franz kafkajs
  local faults=8; [ "${LONG:-0}" = 1 ] && faults=60
  PELTON_FAULTS=${PELTON_FAULTS:-$faults} cargo test --locked --release -p pelton-tests --test outsiders -- --nocapture
}
# The operators of the stream processor against Kafka Streams.
suite_kafka_streams() {
  setup_test
  PELTON_STREAMS_ORACLE=$(tests/streams_oracle/setup.sh); export PELTON_STREAMS_ORACLE
  local cases=1000; [ "${LONG:-0}" = 1 ] && cases=20000
  PELTON_CASES=${PELTON_CASES:-$cases} cargo test --locked -p pelton-streams --test kafka_streams -- --include-ignored --nocapture
}

run_suites() {
  local wanted=() report=() failed=0 skipped=0 s start
  for s in "$@"; do
    case $s in
      --long) export LONG=1 ;;
      -*) die "unknown option $s" ;;
      *) declare -F "suite_$s" >/dev/null || die "unknown suite $s: one of ${NORMAL_SUITES[*]} ${LONG_SUITES[*]}"; wanted+=("$s") ;;
    esac
  done
  if [ ${#wanted[@]} -eq 0 ]; then
    wanted=("${NORMAL_SUITES[@]}")
    [ "${LONG:-0}" = 1 ] && wanted+=("${LONG_SUITES[@]}")
  fi
  PELTON_BIN=$(build | tail -n 1); export PELTON_BIN
  # A program that cannot do its work on this machine writes a line here: a skip is not a pass.
  PELTON_SKIPS=$(mktemp); export PELTON_SKIPS
  for s in "${wanted[@]}"; do
    say "==== $s"
    start=$SECONDS
    : > "$PELTON_SKIPS"
    # A sub-shell with -e of its own: `if suite` would switch errexit off inside it.
    set +e; (set -e; "suite_$s"); local status=$?; set -e
    if [ $status -ne 0 ]; then status=FAILED; failed=$((failed + 1))
    elif [ -s "$PELTON_SKIPS" ]; then status=skipped; skipped=$((skipped + 1))
    else status=ok; fi
    report+=("$(printf '%-12s %-7s %6.1f min' "$s" "$status" "$(awk "BEGIN{print ($SECONDS-$start)/60}")")")
  done
  say ""; printf '%s\n' "${report[@]}"
  printf '%d passed, %d skipped, %d failed\n' $((${#wanted[@]} - failed - skipped)) "$skipped" "$failed"
  rm -f "$PELTON_SKIPS"
  [ "$failed" -eq 0 ]
}
