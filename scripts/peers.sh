#!/usr/bin/env bash
# peers.sh NAME...: a virtual environment in target/bench/venv-NAME for each of these peers of the benchmark; all without
# a name. Where one cannot be made, target/bench/venv-NAME.missing says why, which the results then show.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/apt.sh
mkdir -p target/bench

pip_install() {
    "$VENV/bin/pip" install --quiet --disable-pip-version-check "$@"
}

# Torch before 2.0 needs numpy before 2.0, and so does what works with it.
for_torch() {
    scripts/torch.sh tqdm pillow
    local old=()
    if "$VENV/bin/python" -c "import sys, torch; sys.exit(torch.__version__ >= '2')"; then
        old=("numpy<2" "pyarrow<22")
    fi
    pip_install "$@" ${old[@]+"${old[@]}"}
}

make_kuat() { scripts/torch.sh pillow ./python; }
make_raw() { scripts/torch.sh numpy; }
make_torchvision() { scripts/torch.sh pillow && scripts/torchvision.sh; }
make_simplejpeg() { for_torch simplejpeg; }
make_webdataset() { for_torch webdataset; }
make_datasets() { for_torch datasets; }
make_dali() { for_torch nvidia-dali-cuda120; }

make_ffcv() {
    if "$VENV/bin/python" -c "import ffcv" 2>/dev/null; then
        return
    fi
    if ! pkg-config --exists opencv4 libturbojpeg 2>/dev/null; then
        apt_install "what FFCV is built with" g++ libopencv-dev libturbojpeg0-dev pkg-config python3-dev python3-opencv
    fi
    for_torch "numba<0.61" "numpy<2" terminaltables pytorch_pfn_extras fastargs assertpy setuptools wheel
    if ! "$VENV/bin/python" -c "import cv2" 2>/dev/null; then
        pip_install "opencv-python-headless<4.11"
    fi
    pip_install --no-deps --no-build-isolation ffcv
}

[ $# -gt 0 ] || set -- kuat raw ffcv simplejpeg dali torchvision webdataset datasets
for name in "$@"; do
    export VENV=target/bench/venv-$name
    missing=$VENV.missing
    rm -f "$missing"
    echo "installing $name" >&2
    # `set -e` has no force in the condition of an `if`.
    set +e
    (set -e; "make_$name") 2> >(tee "$VENV.log" >&2)
    status=$?
    set -e
    if [ "$status" -ne 0 ]; then
        { grep . "$VENV.log" || echo "could not be installed"; } | tail -n 1 >"$missing"
    fi
done
