# A compiler that takes flags which are not stable; sourced. Nightly where rustup has one, otherwise the usual one, told to
# behave like it.

if rustup toolchain list 2>/dev/null | grep -q '^nightly'; then
    export RUSTUP_TOOLCHAIN=nightly
else
    export RUSTC_BOOTSTRAP=1
fi
