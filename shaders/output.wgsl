// What all shaders that decode have in common, each prepended with it: the output, and the kernel that writes it value by value.
// They supply
//
//   params     a uniform that begins with the members of `kernels::Params`
//   value_at   the value at a position

// The same buffer as words, pairs and quads: an entry point uses one of them.
@group(0) @binding(3) var<storage, read_write> output_words: array<u32>;
@group(0) @binding(3) var<storage, read_write> output_pairs: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> output_quads: array<vec4<u32>>;

override WORKGROUP_SIZE: u32 = 128u;
override IMAGE_WIDTH: u32 = 224u;
override IMAGE_HEIGHT: u32 = 224u;
override CHANNELS: u32 = 3u;
// Planes (NCHW) rather than interleaved pixels (NHWC).
override PLANAR: bool = false;
// `words`: values in an output word: 4 (u8), 2 (f16) or 1 (f32).
override VALUES_PER_WORD: u32 = 4u;

// Per channel constants in the order of the values of the `part`th group of four that stand side by side in the output.
fn group_constants(constants: vec4<f32>, part: u32) -> vec4<f32> {
    if PLANAR || CHANNELS == 1u {
        return vec4<f32>(constants[part]);
    } else if CHANNELS == 4u {
        return constants;
    } else if part == 0u {
        return constants.xyzx;
    } else if part == 1u {
        return constants.yzxy;
    }
    return constants.zxyz;
}

struct Position {
    // Counts from the first of those that are bound; a difference below zero is a number that is never below their count.
    sample: u32,
    x: u32,
    y: u32,
    channel: u32,
}

struct Value {
    byte: u32,
    // Whether the bound parts hold it.
    here: bool,
}

// The position of a value in a row of them: a row of interleaved pixels of one image, or of one plane of one image.
fn position_at(row: u32, number: u32) -> Position {
    let image = row / IMAGE_HEIGHT;
    if PLANAR {
        return Position(image / CHANNELS - params.first_sample, number, row % IMAGE_HEIGHT, image % CHANNELS);
    }
    return Position(image - params.first_sample, number / CHANNELS, row % IMAGE_HEIGHT, number % CHANNELS);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn words(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = params.first_unit + id.y * params.stride + id.x;
    if unit >= params.end_unit {
        return;
    }
    var row_len = IMAGE_WIDTH;
    if !PLANAR {
        row_len *= CHANNELS;
    }
    var word = 0u;
    var mask = 0u;
    for (var i = 0u; i < VALUES_PER_WORD; i++) {
        let number = params.first_value + unit * VALUES_PER_WORD + i;
        let row = params.first_row + number / row_len;
        let position = position_at(row, number % row_len);
        if row >= params.end_row || position.sample >= params.samples {
            continue;
        }
        let value = value_at(position);
        if !value.here {
            continue;
        }
        if VALUES_PER_WORD == 4u {
            word |= value.byte << (i * 8u);
            mask |= 255u << (i * 8u);
        } else {
            let float = f32(value.byte) * params.scale[position.channel] + params.bias[position.channel];
            if VALUES_PER_WORD == 2u {
                word |= (pack2x16float(vec2<f32>(float, 0.0)) & 0xffffu) << (i * 16u);
                mask |= 0xffffu << (i * 16u);
            } else {
                word = bitcast<u32>(float);
                mask = 0xffffffffu;
            }
        }
    }
    if params.merge != 0u {
        word |= output_words[unit] & ~mask;
    }
    output_words[unit] = word;
}

