#!/usr/bin/env bash
# Runs the tests that use GPUs under Vulkan's validation layer, with its checks of synchronisation, on every adapter of
# Vulkan: a message of the layer's is a failure. `validation.sh TARGET...` runs some of decode_gpu, nearest_gpu, faults,
# concurrency, python.
#
# One message is known, and counted apart: naga, wgpu's compiler, gives all structures of a shader a layout, variables of
# a function too, which SPIR-V from 1.4 on does not allow (https://github.com/gfx-rs/wgpu/issues/7696).
set -euo pipefail
cd "$(dirname "$0")/../.."
KNOWN=VUID-StandaloneSpirv-None-10684

folder=$PWD/target/validation
scripts/chromium.sh "$folder" libVkLayer_khronos_validation.so
cat > "$folder/layer.json" <<'END'
{
    "file_format_version": "1.2.0",
    "layer": {
        "name": "VK_LAYER_KHRONOS_validation",
        "type": "GLOBAL",
        "library_path": "./libVkLayer_khronos_validation.so",
        "api_version": "1.4.0",
        "implementation_version": "1",
        "description": "Khronos Validation Layer",
        "instance_extensions": [
            { "name": "VK_EXT_debug_report", "spec_version": "9" },
            { "name": "VK_EXT_debug_utils", "spec_version": "1" },
            { "name": "VK_EXT_layer_settings", "spec_version": "2" },
            { "name": "VK_EXT_validation_features", "spec_version": "2" }
        ]
    }
}
END
cat > "$folder/vk_layer_settings.txt" <<'END'
khronos_validation.validate_core = true
khronos_validation.validate_sync = true
khronos_validation.syncval_full_validation = true
khronos_validation.syncval_shader_accesses_heuristic = true
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.report_flags = error,warn,info
khronos_validation.enable_message_limit = false
END

. scripts/environment.sh
export NODEVICE_SELECT=1 WGPU_BACKEND=vulkan
under_validation() {
    VK_LAYER_PATH="$folder" VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation \
        VK_LAYER_SETTINGS_PATH="$folder/vk_layer_settings.txt" "$@"
}

# The layer is there and speaks up: an instance is asked for with flags that there are none of.
mistake='
import ctypes
info = (ctypes.c_uint64 * 8)(1, 0, 1 << 31)
ctypes.CDLL("libvulkan.so.1").vkCreateInstance(info, None, ctypes.byref(ctypes.c_void_p()))
'
under_validation python3 -c "$mistake" | grep -q VUID-VkInstanceCreateInfo-flags-parameter ||
    { echo "the validation layer does not report a mistake made on purpose" >&2; exit 1; }

failures=0
for target in ${@:-decode_gpu nearest_gpu faults concurrency python}; do
    log=$folder/$target.log
    case $target in
        python) command=(target/venv/bin/python -m pytest -q -s python/tests/test_device.py) ;;
        *) command=(cargo test --release --test "$target" -- --nocapture) ;;
    esac
    status=passed
    under_validation "${command[@]}" > "$log" 2>&1 || status=FAILED
    # Each instance says that it is checked, and for what.
    instances=$(grep -c "CURRENT-VALIDATION-ENABLED" "$log" || true)
    synchronisation=$(grep -c -e "  - Synchronization" "$log" || true)
    known=$(grep -c "^Validation .*\[ $KNOWN \]" "$log" || true)
    others=$(grep -E "Validation (Error|Warning|Performance Warning): " "$log" | grep -vc "\[ $KNOWN \]" || true)
    tests=$(grep -E "^test result|[0-9]+ passed" "$log" | tail -n 1)
    echo "$target: tests $status ($tests); $instances instances under validation, $others messages, $known known ones"
    if [ "$status" != passed ] || [ "$others" -gt 0 ] || [ "$instances" -eq 0 ] || [ "$synchronisation" -ne "$instances" ]; then
        echo "see $log" >&2
        failures=1
    fi
done
exit $failures
