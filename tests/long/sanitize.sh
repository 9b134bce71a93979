#!/usr/bin/env bash
# sanitize.sh address|thread|python: the tests under AddressSanitizer or ThreadSanitizer, or those of the Python package
# under AddressSanitizer. Debug assertions and checks of overflow are on.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/unstable.sh

host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true CARGO_PROFILE_RELEASE_DEBUG=1

# A target says that build scripts and macros, which the compiler itself loads, are built without the flags.
tests() {
    cargo test --release --no-fail-fast --target "$host" --target-dir "target/sanitize/$1" --no-default-features \
        "${more[@]}" --lib --test archive --test corruption -- "${@:2}"
}

case ${1-} in
address)
    # The test that limits the memory of a process leaves no room for the sanitizer's.
    more=(--test decode_cpu)
    RUSTFLAGS="-Zsanitizer=address" tests address --skip a_codebook_that_memory_does_not_hold_is_an_error
    ;;
thread)
    # Where the source of the standard library is there, it is built for it, too. Elsewhere what its locks order is not
    # seen: all that rayon's threads hand to each other looks like a race, so the decoder's tests are left out.
    if [ -d "$(rustc --print sysroot)/lib/rustlib/src/rust/library" ]; then
        more=(-Zbuild-std --test decode_cpu)
    else
        echo "left out: decode_cpu, which needs a standard library built for ThreadSanitizer (rust-src)" >&2
        more=()
    fi
    export TSAN_OPTIONS="suppressions=$PWD/tests/long/tsan.supp"
    RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" tests thread --test-threads 1 \
        --skip a_codebook_that_memory_does_not_hold_is_an_error
    ;;
python)
    scripts/venv.sh numpy pillow pytest safetensors tqdm
    RUSTFLAGS="-Zsanitizer=address" PYO3_PYTHON="$PWD/target/venv/bin/python" \
        cargo build --release --package kuat-python --target "$host" --target-dir target/sanitize/address
    package=target/sanitize/python
    rm -rf "$package" && mkdir -p "$package"
    cp -r python/kuat "$package"
    cp "target/sanitize/address/$host/release/lib_kuat.so" "$package/kuat/_kuat.abi3.so"
    # The sanitizer keeps what was freed for a while, so memory does grow, and its own locks are not made for a fork while
    # other threads allocate.
    without="not memory_does_not_grow and not fork_while_threads_decode"
    # The interpreter was not built for it, so the sanitizer comes from the C compiler, before everything else; what
    # Python itself leaves behind at its end is no leak of ours.
    # Built with checks, kuat warns that it is slow.
    LD_PRELOAD=$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONWARNINGS=ignore \
        PYTHONPATH="$package" KUAT_TEST_WITHOUT_GPU=1 KUAT_TEST_WITHOUT_JAX=1 KUAT_TEST_WITHOUT_TORCH=1 \
        target/venv/bin/python -m pytest -p no:cacheprovider -k "$without" python/tests/test_archive.py \
        python/tests/test_batch.py python/tests/test_damage.py python/tests/test_dataset.py python/tests/test_process.py \
        python/tests/test_command.py python/tests/test_encode.py
    ;;
*)
    echo "which sanitizer: address, thread or python" >&2
    exit 2
    ;;
esac
