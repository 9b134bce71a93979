// Index rows to pixels.
//
// `columns_*`: one invocation writes four adjacent pixels of every row of one patch row of the grid: a whole patch of
// width 4, two of width 2, four of width 1, a quarter of one of width 16. Indices are read once, loads of codewords are
// quads of words, stores whole words. Needs an image width that is a multiple of 4 and a patch width of 1, 2 or a
// multiple of 4.
//
// `words`: one invocation writes one 32-bit word of the output, value by value. Needs nothing; and it alone can work
// on a part of the codebook, of an index row or of an image, leaving what other parts supply as it is (`merge`).
//
// Buffers:
//   indices   index rows as stored in the archive, each padded to a whole word
//   codebook  codewords in strips as wide as a column (or the patch, if it is narrower or of an odd width), one beside
//             the other; each row of a strip is padded with zeros to a whole word, each strip to a whole quad
//   output    values in the layout asked for, without padding
//   images    of each image of a batch of resident rows: the first word of its row, how many words it has, its place in
//             the output binding, and the part of the rows that holds it
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
    // `words`: the row of values (see `position_at`) and the place in it at which the output binding begins.
    first_row: u32,
    first_value: u32,
    // `words`: rows of values that exist; what is beyond is padding.
    end_row: u32,
    // `words`: keep what this pass does not supply, instead of clearing it.
    merge: u32,
    // `words`: the samples that the bound parts hold. With RESIDENT they are counted in `images`, where `columns_*` begin
    // at the first, and those alone are here whose rows are in this part.
    first_sample: u32,
    samples: u32,
    part: u32,
    // `words`: the patches and codewords that the bound parts hold.
    first_patch: u32,
    patches: u32,
    last_codeword: u32,
    first_codeword: u32,
    @size(8) codewords: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
// The same buffer as quads, for the columns, and as words.
@group(0) @binding(2) var<storage, read> codebook_quads: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> codebook_words: array<u32>;
@group(0) @binding(4) var<storage, read> images: array<vec4<u32>>;

override PATCH_WIDTH: u32 = 4u;
override PATCH_HEIGHT: u32 = 4u;
// Columns across a patch; 1 also for patches narrower than a column.
override PATCH_COLUMNS: u32 = 1u;
override GRID_WIDTH: u32 = 56u;
override GRID_HEIGHT: u32 = 56u;
override INDEX_BITS: u32 = 16u;
// Words of an index row.
override ROW_WORDS: u32 = 1568u;
// Pixels across a strip, and words of a row of one, of a strip, of a codeword.
override STRIP_WIDTH: u32 = 4u;
override STRIP_ROW_WORDS: u32 = 3u;
override STRIP_WORDS: u32 = 12u;
override CODEWORD_WORDS: u32 = 12u;
// Whether `indices` holds rows that stay on the device, among which `images` chooses, rather than the batch's in order.
override RESIDENT: bool = false;

// The index of a patch, given the first word of its row; both count from where the bound part of the rows begins.
fn index_at(row: u32, patch_number: u32) -> u32 {
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

// The indices of a patch and of the next one, where the first has an even number.
fn pair_at(row: u32, patch_number: u32) -> vec2<u32> {
    if 32u % (2u * INDEX_BITS) != 0u {
        return vec2<u32>(index_at(row, patch_number), index_at(row, patch_number + 1u));
    }
    // Both are in one word, which two calls would load twice.
    let bit = patch_number * INDEX_BITS;
    let word = indices[row + bit / 32u] >> bit % 32u;
    let pair = vec2<u32>(word, word >> INDEX_BITS % 32u) & vec2<u32>((1u << (INDEX_BITS % 32u)) - 1u);
    return min(pair, vec2<u32>(params.last_codeword));
}

// ---- columns ----

struct Column {
    // First row of pixels.
    top: u32,
    // Place of the first group of four values in the output, in groups.
    place: u32,
    // First quad of the strip that holds each of the four pixels; one for all of them, one for two, or one for each.
    strips: vec4<u32>,
}

fn column_at(unit: u32) -> Column {
    let width = IMAGE_WIDTH / 4u;
    var column: Column;
    let x = unit % width;
    let grid_row = unit / width;
    let grid_y = grid_row % GRID_HEIGHT;
    var image = grid_row / GRID_HEIGHT;
    var row = image * ROW_WORDS;
    if RESIDENT {
        let chosen = images[params.first_sample + image];
        row = chosen.x;
        image = chosen.z;
    }
    column.top = grid_y * PATCH_HEIGHT;
    if PLANAR {
        column.place = (image * CHANNELS * IMAGE_HEIGHT + column.top) * width + x;
    } else {
        column.place = ((image * IMAGE_HEIGHT + column.top) * width + x) * CHANNELS;
    }
    let patch_number = grid_y * GRID_WIDTH + x * 4u / PATCH_WIDTH;
    // With narrow patches a row of the grid begins at a patch of even number, as images are a multiple of 4 wide.
    if PATCH_WIDTH == 1u {
        let pairs = vec4<u32>(pair_at(row, patch_number), pair_at(row, patch_number + 2u));
        column.strips = pairs * (CODEWORD_WORDS / 4u);
    } else if PATCH_WIDTH == 2u {
        let pair = pair_at(row, patch_number) * (CODEWORD_WORDS / 4u);
        column.strips = vec4<u32>(pair.x, 0u, pair.y, 0u);
    } else {
        let strip = x % PATCH_COLUMNS * (STRIP_WORDS / 4u);
        column.strips = vec4<u32>(index_at(row, patch_number) * (CODEWORD_WORDS / 4u) + strip, 0u, 0u, 0u);
    }
    return column;
}

// Whether a row of the patch is in the image.
fn is_inside(column: Column, y: u32) -> bool {
    return y < PATCH_HEIGHT && (IMAGE_HEIGHT % PATCH_HEIGHT == 0u || column.top + y < IMAGE_HEIGHT);
}

// Of each strip of a column the quad that holds the end of a row.
struct Quads {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

// The quads of row `y + row`, given those of the row before. `y` is a multiple of 4, where a row begins at a whole quad;
// `row`, below 4, is written as a number, so that what depends on it is decided at compile time.
fn quads_at(column: Column, y: u32, row: u32, before: Quads) -> Quads {
    let quad = (row * STRIP_ROW_WORDS + STRIP_ROW_WORDS - 1u) / 4u;
    if y + row >= PATCH_HEIGHT || (row > 0u && quad == (row * STRIP_ROW_WORDS - 1u) / 4u) {
        return before;
    }
    let quads = column.strips + y / 4u * STRIP_ROW_WORDS + quad;
    var now: Quads;
    now.a = codebook_quads[quads.x];
    if PATCH_WIDTH == 1u {
        now.b = codebook_quads[quads.y];
        now.d = codebook_quads[quads.w];
    }
    if PATCH_WIDTH <= 2u {
        now.c = codebook_quads[quads.z];
    }
    return now;
}

// The words of a row of a strip, from the quads of the row before and of this one; what follows them is undefined.
fn row_words(before: vec4<u32>, now: vec4<u32>, row: u32) -> vec4<u32> {
    let first = row * STRIP_ROW_WORDS % 4u;
    if first + STRIP_ROW_WORDS > 4u {
        // Rows of three words alone are split.
        if first == 3u {
            return vec4<u32>(before.w, now.xy, 0u);
        }
        return vec4<u32>(before.zw, now.x, 0u);
    } else if first == 1u {
        return now.yzwx;
    } else if first == 2u {
        return now.zwxy;
    } else if first == 3u {
        return now.wxyz;
    }
    return now;
}

// Four pixels of a row of the patch, interleaved: as many words as there are channels.
fn pixels_of(before: Quads, now: Quads, row: u32) -> vec4<u32> {
    let a = row_words(before.a, now.a, row);
    if PATCH_WIDTH > 2u {
        return a;
    }
    let c = row_words(before.c, now.c, row);
    if PATCH_WIDTH == 2u {
        if CHANNELS == 1u {
            return vec4<u32>(a.x | c.x << 16u, 0u, 0u, 0u);
        } else if CHANNELS == 3u {
            return vec4<u32>(a.x, a.y | c.x << 16u, (c.x >> 16u) | c.y << 16u, 0u);
        }
        return vec4<u32>(a.xy, c.xy);
    }
    let b = row_words(before.b, now.b, row).x;
    let d = row_words(before.d, now.d, row).x;
    if CHANNELS == 1u {
        return vec4<u32>(a.x | b << 8u | c.x << 16u | d << 24u, 0u, 0u, 0u);
    } else if CHANNELS == 3u {
        return vec4<u32>(a.x | b << 24u, b >> 8u | c.x << 16u, c.x >> 16u | d << 8u, 0u);
    }
    return vec4<u32>(a.x, b, c.x, d);
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

fn group_floats(pixels: vec4<u32>, part: u32) -> vec4<f32> {
    // By way of signed integers, for which processors have a conversion.
    let values = vec4<f32>(vec4<i32>(group_values(pixels, part)));
    return fma(values, group_constants(params.scale, part), group_constants(params.bias, part));
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

fn write_row_u8(column: Column, y: u32, pixels: vec4<u32>) {
    if !is_inside(column, y) {
        return;
    }
    write_group_u8(column, y, pixels, 0u);
    if CHANNELS >= 3u {
        write_group_u8(column, y, pixels, 1u);
        write_group_u8(column, y, pixels, 2u);
    }
    if CHANNELS == 4u {
        write_group_u8(column, y, pixels, 3u);
    }
}

fn write_row_f16(column: Column, y: u32, pixels: vec4<u32>) {
    if !is_inside(column, y) {
        return;
    }
    write_group_f16(column, y, pixels, 0u);
    if CHANNELS >= 3u {
        write_group_f16(column, y, pixels, 1u);
        write_group_f16(column, y, pixels, 2u);
    }
    if CHANNELS == 4u {
        write_group_f16(column, y, pixels, 3u);
    }
}

fn write_row_f32(column: Column, y: u32, pixels: vec4<u32>) {
    if !is_inside(column, y) {
        return;
    }
    write_group_f32(column, y, pixels, 0u);
    if CHANNELS >= 3u {
        write_group_f32(column, y, pixels, 1u);
        write_group_f32(column, y, pixels, 2u);
    }
    if CHANNELS == 4u {
        write_group_f32(column, y, pixels, 3u);
    }
}

// The first four rows are outside of the loop, which most patches never enter.

fn four_rows_u8(column: Column, y: u32) {
    let a = quads_at(column, y, 0u, Quads());
    write_row_u8(column, y, pixels_of(a, a, 0u));
    let b = quads_at(column, y, 1u, a);
    write_row_u8(column, y + 1u, pixels_of(a, b, 1u));
    let c = quads_at(column, y, 2u, b);
    write_row_u8(column, y + 2u, pixels_of(b, c, 2u));
    let d = quads_at(column, y, 3u, c);
    write_row_u8(column, y + 3u, pixels_of(c, d, 3u));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn columns_u8(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = params.first_unit + id.y * params.stride + id.x;
    if unit >= params.end_unit {
        return;
    }
    let column = column_at(unit);
    four_rows_u8(column, 0u);
    for (var y = 4u; y < PATCH_HEIGHT; y += 4u) {
        four_rows_u8(column, y);
    }
}

fn four_rows_f16(column: Column, y: u32) {
    let a = quads_at(column, y, 0u, Quads());
    write_row_f16(column, y, pixels_of(a, a, 0u));
    let b = quads_at(column, y, 1u, a);
    write_row_f16(column, y + 1u, pixels_of(a, b, 1u));
    let c = quads_at(column, y, 2u, b);
    write_row_f16(column, y + 2u, pixels_of(b, c, 2u));
    let d = quads_at(column, y, 3u, c);
    write_row_f16(column, y + 3u, pixels_of(c, d, 3u));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn columns_f16(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = params.first_unit + id.y * params.stride + id.x;
    if unit >= params.end_unit {
        return;
    }
    let column = column_at(unit);
    four_rows_f16(column, 0u);
    for (var y = 4u; y < PATCH_HEIGHT; y += 4u) {
        four_rows_f16(column, y);
    }
}

fn four_rows_f32(column: Column, y: u32) {
    let a = quads_at(column, y, 0u, Quads());
    write_row_f32(column, y, pixels_of(a, a, 0u));
    let b = quads_at(column, y, 1u, a);
    write_row_f32(column, y + 1u, pixels_of(a, b, 1u));
    let c = quads_at(column, y, 2u, b);
    write_row_f32(column, y + 2u, pixels_of(b, c, 2u));
    let d = quads_at(column, y, 3u, c);
    write_row_f32(column, y + 3u, pixels_of(c, d, 3u));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn columns_f32(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = params.first_unit + id.y * params.stride + id.x;
    if unit >= params.end_unit {
        return;
    }
    let column = column_at(unit);
    four_rows_f32(column, 0u);
    for (var y = 4u; y < PATCH_HEIGHT; y += 4u) {
        four_rows_f32(column, y);
    }
}

// ---- words ----

fn value_at(position: Position) -> Value {
    let missing = Value(0u, false);
    let patch_number = position.y / PATCH_HEIGHT * GRID_WIDTH + position.x / PATCH_WIDTH - params.first_patch;
    // A difference below zero is a number that is never below the count.
    if patch_number >= params.patches {
        return missing;
    }
    var first = position.sample * ROW_WORDS;
    if RESIDENT {
        let image = images[position.sample];
        first = image.x;
        if image.w != params.part {
            return missing;
        }
    }
    let codeword = index_at(first, patch_number) - params.first_codeword;
    if codeword >= params.codewords {
        return missing;
    }
    let within = position.x % PATCH_WIDTH;
    let byte = within % STRIP_WIDTH * CHANNELS + position.channel;
    let strip = codeword * CODEWORD_WORDS + within / STRIP_WIDTH * STRIP_WORDS;
    let word = codebook_words[strip + position.y % PATCH_HEIGHT * STRIP_ROW_WORDS + byte / 4u];
    return Value((word >> (byte % 4u * 8u)) & 255u, true);
}
