// The limit that decoding is measured against: stores as many bytes as a batch has, and does nothing else.
//
// `fill_words`: one invocation stores one 32-bit word. `fill_quads`: four of them.

struct Params {
    // Units (words or quads) before this dispatch, and where they end.
    first_unit: u32,
    end_unit: u32,
    // Invocations along x of the dispatch.
    stride: u32,
    value: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// The same buffer as words and as quads: an entry point uses one of them.
@group(0) @binding(1) var<storage, read_write> output_words: array<u32>;
@group(0) @binding(1) var<storage, read_write> output_quads: array<vec4<u32>>;

override WORKGROUP_SIZE: u32 = 128u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn fill_words(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = params.first_unit + id.y * params.stride + id.x;
    if unit < params.end_unit {
        output_words[unit] = params.value;
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn fill_quads(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = params.first_unit + id.y * params.stride + id.x;
    if unit < params.end_unit {
        output_quads[unit] = vec4<u32>(params.value);
    }
}
