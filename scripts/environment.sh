# The environment of the tests; sourced from the top of the repository.

if [ -e target/swiftshader/vk_swiftshader_icd.json ]; then
    export VK_ADD_DRIVER_FILES="$PWD/target/swiftshader/vk_swiftshader_icd.json"
fi

# Every API, OpenGL too, which is otherwise looked at only where there is no other.
export WGPU_BACKEND=vulkan,metal,dx12,gl
