// Index rows to pixels.
//
// `columns_*`: one invocation writes four adjacent pixels of every row of one patch row of the grid: a whole patch of
// width 4, two of width 2, four of width 1, a quarter of one of width 16. Indices are read once, stores are whole
// words. Needs an image width that is a multiple of 4 and a patch width of 1, 2 or a multiple of 4.
//
// `words`: one invocation writes one 32-bit word of the output, value by value. Needs nothing; and it alone can work
// on a part of the codebook, of an index row or of an image, leaving what other parts supply as it is (`merge`).
//
// Buffers:
//   indices   index rows as stored in the archive, each padded to a whole word
//   codebook  codewords; every patch row of a codeword is padded with zeros to a whole word
//   output    values in the layout asked for, without padding
//
// No index reads outside the codebook: each is bounded by `last_codeword` first. All other addresses follow from the
// geometry, which the host has checked.

struct Params {
    // Per channel: value = byte * scale + bias.
    scale: vec4<f32>,
    bias: vec4<f32>,
    // Units (columns or words) before this dispatch, and where they end.
    first_unit: u32,
    end_unit: u32,
    // Invocations along x of the dispatch.
    stride: u32,
    last_codeword: u32,
    // `words`: the row of values (see `value_at`) and the place in it at which the output binding begins.
    first_row: u32,
    first_value: u32,
    // `words`: rows of values that exist; what is beyond is padding.
    end_row: u32,
    // `words`: keep what this pass does not supply, instead of clearing it.
    merge: u32,
    // `words`: the samples, patches and codewords that the bound parts hold.
    first_sample: u32,
    samples: u32,
    first_patch: u32,
    patches: u32,
    first_codeword: u32,
    codewords: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read> codebook: array<u32>;
// The same buffer as words, pairs and quads: an entry point uses one of them.
@group(0) @binding(3) var<storage, read_write> output_words: array<u32>;
@group(0) @binding(3) var<storage, read_write> output_pairs: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> output_quads: array<vec4<u32>>;

override WORKGROUP_SIZE: u32 = 128u;
override IMAGE_WIDTH: u32 = 224u;
override IMAGE_HEIGHT: u32 = 224u;
override CHANNELS: u32 = 3u;
override PATCH_WIDTH: u32 = 4u;
override PATCH_HEIGHT: u32 = 4u;
// Columns across a patch; 1 also for patches narrower than a column.
override PATCH_COLUMNS: u32 = 1u;
override GRID_WIDTH: u32 = 56u;
override GRID_HEIGHT: u32 = 56u;
override INDEX_BITS: u32 = 16u;
// Words of an index row.
override ROW_WORDS: u32 = 1568u;
// Words of a codeword, and of one patch row of it.
override CODEWORD_WORDS: u32 = 12u;
override CODEWORD_ROW_WORDS: u32 = 3u;
// Planes (NCHW) rather than interleaved pixels (NHWC).
override PLANAR: bool = false;
// `words`: values in an output word: 4 (u8), 2 (f16) or 1 (f32).
override VALUES_PER_WORD: u32 = 4u;

// The index of a patch; `sample` and `patch_number` count from where the bound part of the index rows begins.
fn index_at(sample: u32, patch_number: u32) -> u32 {
    let row = sample * ROW_WORDS;
    let bit = patch_number * INDEX_BITS;
    let word = row + bit / 32u;
    let shift = bit % 32u;
    var index = indices[word] >> shift;
    if 32u % INDEX_BITS != 0u && shift + INDEX_BITS > 32u {
        index |= indices[word + 1u] << (32u - shift);
    }
    if INDEX_BITS < 32u {
        index &= (1u << (INDEX_BITS % 32u)) - 1u;
    }
    return min(index, params.last_codeword);
}

// ---- columns ----

struct Column {
    // First row of pixels.
    top: u32,
    // Place of the first group of four values in the output, in groups.
    place: u32,
    // First word of the codeword that holds each of the four pixels.
    codewords: vec4<u32>,
}

fn column_at(unit: u32) -> Column {
    let width = IMAGE_WIDTH / 4u;
    var column: Column;
    let x = unit % width;
    let grid_row = unit / width;
    let grid_y = grid_row % GRID_HEIGHT;
    let sample = grid_row / GRID_HEIGHT;
    column.top = grid_y * PATCH_HEIGHT;
    if PLANAR {
        column.place = (sample * CHANNELS * IMAGE_HEIGHT + column.top) * width + x;
    } else {
        column.place = ((sample * IMAGE_HEIGHT + column.top) * width + x) * CHANNELS;
    }
    let patch_number = grid_y * GRID_WIDTH + x * 4u / PATCH_WIDTH;
    if PATCH_WIDTH == 1u {
        column.codewords = vec4<u32>(
            index_at(sample, patch_number),
            index_at(sample, patch_number + 1u),
            index_at(sample, patch_number + 2u),
            index_at(sample, patch_number + 3u),
        ) * CODEWORD_WORDS;
    } else if PATCH_WIDTH == 2u {
        column.codewords = vec4<u32>(
            index_at(sample, patch_number),
            0u,
            index_at(sample, patch_number + 1u),
            0u,
        ) * CODEWORD_WORDS;
    } else {
        let within = x % PATCH_COLUMNS * CHANNELS;
        column.codewords = vec4<u32>(index_at(sample, patch_number) * CODEWORD_WORDS + within, 0u, 0u, 0u);
    }
    return column;
}

// Whether a row of the patch is below the image's lower edge.
fn is_below(column: Column, y: u32) -> bool {
    return IMAGE_HEIGHT % PATCH_HEIGHT != 0u && column.top + y >= IMAGE_HEIGHT;
}

// Four pixels of row `y` of the patch, interleaved: as many words as there are channels.
fn pixels_at(column: Column, y: u32) -> vec4<u32> {
    let words = column.codewords + y * CODEWORD_ROW_WORDS;
    if PATCH_WIDTH == 1u {
        let a = codebook[words.x];
        let b = codebook[words.y];
        let c = codebook[words.z];
        let d = codebook[words.w];
        if CHANNELS == 1u {
            return vec4<u32>(a | b << 8u | c << 16u | d << 24u, 0u, 0u, 0u);
        } else if CHANNELS == 3u {
            return vec4<u32>(a | b << 24u, b >> 8u | c << 16u, c >> 16u | d << 8u, 0u);
        }
        return vec4<u32>(a, b, c, d);
    } else if PATCH_WIDTH == 2u {
        if CHANNELS == 1u {
            return vec4<u32>(codebook[words.x] | codebook[words.z] << 16u, 0u, 0u, 0u);
        }
        let a = vec2<u32>(codebook[words.x], codebook[words.x + 1u]);
        let b = vec2<u32>(codebook[words.z], codebook[words.z + 1u]);
        if CHANNELS == 3u {
            return vec4<u32>(a.x, a.y | b.x << 16u, b.x >> 16u | b.y << 16u, 0u);
        }
        return vec4<u32>(a, b);
    }
    let first = words.x;
    if CHANNELS == 1u {
        return vec4<u32>(codebook[first], 0u, 0u, 0u);
    } else if CHANNELS == 3u {
        return vec4<u32>(codebook[first], codebook[first + 1u], codebook[first + 2u], 0u);
    }
    return vec4<u32>(codebook[first], codebook[first + 1u], codebook[first + 2u], codebook[first + 3u]);
}

// Four values that stand side by side in the output, of the `part`th of as many such groups as there are channels.
fn group_values(pixels: vec4<u32>, part: u32) -> vec4<u32> {
    if !PLANAR || CHANNELS == 1u {
        return unpack4xU8(pixels[part]);
    }
    let a = unpack4xU8(pixels.x);
    let b = unpack4xU8(pixels.y);
    let c = unpack4xU8(pixels.z);
    if CHANNELS == 4u {
        let d = unpack4xU8(pixels.w);
        return vec4<u32>(a[part], b[part], c[part], d[part]);
    } else if part == 0u {
        return vec4<u32>(a.x, a.w, b.z, c.y);
    } else if part == 1u {
        return vec4<u32>(a.y, b.x, b.w, c.z);
    }
    return vec4<u32>(a.z, b.y, c.x, c.w);
}

// The same group's place in the output, in groups of four values.
fn group_place(column: Column, y: u32, part: u32) -> u32 {
    if PLANAR {
        return column.place + (part * IMAGE_HEIGHT + y) * (IMAGE_WIDTH / 4u);
    }
    return column.place + y * (IMAGE_WIDTH / 4u * CHANNELS) + part;
}

// Per channel constants in the order of a group's values.
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

fn group_floats(pixels: vec4<u32>, part: u32) -> vec4<f32> {
    let values = vec4<f32>(group_values(pixels, part));
    return values * group_constants(params.scale, part) + group_constants(params.bias, part);
}

fn write_group_u8(column: Column, y: u32, pixels: vec4<u32>, part: u32) {
    if PLANAR {
        output_words[group_place(column, y, part)] = pack4xU8(group_values(pixels, part));
    } else {
        output_words[group_place(column, y, part)] = pixels[part];
    }
}

fn write_group_f16(column: Column, y: u32, pixels: vec4<u32>, part: u32) {
    let values = group_floats(pixels, part);
    output_pairs[group_place(column, y, part)] = vec2<u32>(pack2x16float(values.xy), pack2x16float(values.zw));
}

fn write_group_f32(column: Column, y: u32, pixels: vec4<u32>, part: u32) {
    output_quads[group_place(column, y, part)] = bitcast<vec4<u32>>(group_floats(pixels, part));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn columns_u8(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = params.first_unit + id.y * params.stride + id.x;
    if unit >= params.end_unit {
        return;
    }
    let column = column_at(unit);
    for (var y = 0u; y < PATCH_HEIGHT; y++) {
        if is_below(column, y) {
            break;
        }
        let pixels = pixels_at(column, y);
        write_group_u8(column, y, pixels, 0u);
        if CHANNELS >= 3u {
            write_group_u8(column, y, pixels, 1u);
            write_group_u8(column, y, pixels, 2u);
        }
        if CHANNELS == 4u {
            write_group_u8(column, y, pixels, 3u);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn columns_f16(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = params.first_unit + id.y * params.stride + id.x;
    if unit >= params.end_unit {
        return;
    }
    let column = column_at(unit);
    for (var y = 0u; y < PATCH_HEIGHT; y++) {
        if is_below(column, y) {
            break;
        }
        let pixels = pixels_at(column, y);
        write_group_f16(column, y, pixels, 0u);
        if CHANNELS >= 3u {
            write_group_f16(column, y, pixels, 1u);
            write_group_f16(column, y, pixels, 2u);
        }
        if CHANNELS == 4u {
            write_group_f16(column, y, pixels, 3u);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn columns_f32(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = params.first_unit + id.y * params.stride + id.x;
    if unit >= params.end_unit {
        return;
    }
    let column = column_at(unit);
    for (var y = 0u; y < PATCH_HEIGHT; y++) {
        if is_below(column, y) {
            break;
        }
        let pixels = pixels_at(column, y);
        write_group_f32(column, y, pixels, 0u);
        if CHANNELS >= 3u {
            write_group_f32(column, y, pixels, 1u);
            write_group_f32(column, y, pixels, 2u);
        }
        if CHANNELS == 4u {
            write_group_f32(column, y, pixels, 3u);
        }
    }
}

// ---- words ----

struct Value {
    byte: u32,
    channel: u32,
    // Whether the bound parts hold it.
    here: bool,
}

// The value at a place of a row of values: a row of interleaved pixels of one image, or of one plane of one image.
fn value_at(row: u32, place: u32) -> Value {
    var value: Value;
    var x = place;
    let y = row % IMAGE_HEIGHT;
    var sample = row / IMAGE_HEIGHT;
    if PLANAR {
        value.channel = sample % CHANNELS;
        sample /= CHANNELS;
    } else {
        value.channel = place % CHANNELS;
        x = place / CHANNELS;
    }
    let patch_number = y / PATCH_HEIGHT * GRID_WIDTH + x / PATCH_WIDTH - params.first_patch;
    sample -= params.first_sample;
    // Differences below zero wrap around to numbers that are never below the counts.
    if row >= params.end_row || sample >= params.samples || patch_number >= params.patches {
        return value;
    }
    let codeword = index_at(sample, patch_number) - params.first_codeword;
    if codeword >= params.codewords {
        return value;
    }
    value.here = true;
    let byte = x % PATCH_WIDTH * CHANNELS + value.channel;
    let word = codeword * CODEWORD_WORDS + y % PATCH_HEIGHT * CODEWORD_ROW_WORDS + byte / 4u;
    value.byte = (codebook[word] >> (byte % 4u * 8u)) & 255u;
    return value;
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
        let place = params.first_value + unit * VALUES_PER_WORD + i;
        let value = value_at(params.first_row + place / row_len, place % row_len);
        if !value.here {
            continue;
        }
        if VALUES_PER_WORD == 4u {
            word |= value.byte << (i * 8u);
            mask |= 255u << (i * 8u);
        } else {
            let float = f32(value.byte) * params.scale[value.channel] + params.bias[value.channel];
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
