#!/usr/bin/env bash
# valgrind.sh memcheck|python: the tests of the CPU decoder, or those of the Python package, under valgrind's memcheck.
# It knows no AVX-512: the decoder then has the paths "portable" and "avx2".
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/apt.sh
command -v valgrind >/dev/null || apt_install valgrind valgrind

check=(valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite)

case ${1-} in
memcheck)
    cargo test --release --no-default-features --no-run --lib --test decode_cpu --test archive \
        --test corruption 2>&1 | tee /dev/stderr | sed -n 's/.*Executable .*(\(.*\))$/\1/p' >target/valgrind-tests
    # Without the test that limits the memory of a process, and those of many megabytes.
    while read -r test; do
        KUAT_TEST_SMALL=1 "${check[@]}" "$test" --skip a_codebook_that_memory_does_not_hold_is_an_error --skip large_batches
    done <target/valgrind-tests
    ;;
python)
    scripts/venv.sh numpy pillow pytest safetensors tqdm
    PYO3_PYTHON="$PWD/target/venv/bin/python" cargo build --release --package kuat-python
    package=target/valgrind-python
    rm -rf "$package" && mkdir -p "$package"
    cp -r python/kuat "$package"
    cp target/release/lib_kuat.so "$package/kuat/_kuat.abi3.so"
    supp=$(ls /usr/lib/valgrind/python3.supp /usr/share/doc/python3*/valgrind-python.supp 2>/dev/null | head -n 1)
    # The interpreter and numpy leave memory behind at their end, and the interpreter has errors of its own (it looks at
    # the first digit of numbers that have none): those count that happen in kuat or right below it.
    PYTHONMALLOC=malloc PYTHONPATH="$package" KUAT_TEST_WITHOUT_GPU=1 KUAT_TEST_WITHOUT_JAX=1 \
        valgrind --log-file=target/valgrind-python.log --leak-check=no --num-callers=40 ${supp:+--suppressions="$supp"} \
        target/venv/bin/python -m pytest -p no:cacheprovider python/tests/test_archive.py python/tests/test_batch.py
    ours=$(sed 's/^==[0-9]*== *//' target/valgrind-python.log |
        awk 'BEGIN { RS = ""; FS = "\n" } $2 $3 ~ /_kuat/ { n++ } END { print n + 0 }')
    tail -n 1 target/valgrind-python.log
    echo "errors in kuat: $ours"
    [ "$ours" -eq 0 ]
    ;;
*)
    echo "what to check: memcheck or python" >&2
    exit 2
    ;;
esac
