# The environment of the tests; sourced from the top of the repository.

if [ -e target/swiftshader/vk_swiftshader_icd.json ]; then
    export VK_ADD_DRIVER_FILES="$PWD/target/swiftshader/vk_swiftshader_icd.json"
fi
