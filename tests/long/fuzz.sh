#!/usr/bin/env bash
# fuzz.sh SECONDS [TARGET...]: fuzzes each target, or these, for so long. Inputs that reach something new are kept in
# target/fuzz/corpus, those that break something in target/fuzz/findings.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/unstable.sh

seconds=${1:-60}
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || targets=(open header decode writer sources picture)

export PATH="$PWD/target/tools/bin:$PATH"
command -v cargo-fuzz >/dev/null || cargo install --root target/tools --locked cargo-fuzz
cargo fuzz build --target-dir "$PWD/target/fuzz"
host=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p target/fuzz/findings

for target in "${targets[@]}"; do
    # Inputs are small, so whatever asks for much memory does not ask for it because of them. Pictures may be large:
    # their decoders have a limit of 16 MiB and some.
    case $target in
    open | header) options=(-max_len=8192 -malloc_limit_mb=32 -dict=fuzz/header.dict) ;;
    sources) options=(-max_len=16384 -malloc_limit_mb=32 -dict=fuzz/sources.dict) ;;
    # A thread of the JPEG decoder's that is about to end while leaks are looked for looks like one.
    picture) options=(-max_len=4096 -malloc_limit_mb=64 -detect_leaks=0) ;;
    *) options=(-max_len=1024 -malloc_limit_mb=32) ;;
    esac
    mkdir -p "target/fuzz/corpus/$target"
    echo "fuzzing: $target, $seconds s"
    "target/fuzz/$host/release/$target" "target/fuzz/corpus/$target" "fuzz/corpus/$target" "${options[@]}" \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -artifact_prefix="target/fuzz/findings/$target-" \
        -print_final_stats=1 >"target/fuzz/$target.log" 2>&1 || { tail -n 40 "target/fuzz/$target.log" && exit 1; }
    grep -E '^#[0-9]+.*DONE|^Done|peak_rss_mb' "target/fuzz/$target.log"
done
