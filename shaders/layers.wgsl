// Records of the codec "layers" to pixels.
//
// `tiles_*`: one invocation writes a tile of 4x4 pixels, a quarter of a block of luma. Where a block's indices are is
// found by counting bits, so no invocation waits for another. Loads of codewords are quads or pairs of words, stores whole
// words. Needs an image width that is a multiple of 4.
//
// `words`: one invocation writes one 32-bit word of the output, value by value. Needs nothing; and it alone can work on
// a part of an image, leaving what other parts supply as it is (`merge`).
//
// Buffers:
//   records   records as stored in the archive
//   books     a header, see `block_at` and `stage_at`, and the codewords; values are bytes, too large by 128. A quad holds
//             the four rows of a tile of luma, or of one plane of a tile of chroma. Of codewords that give a value to 2x2
//             pixels it holds two tiles, Cb and Cr of each: upper left, lower left, upper right, lower right
//   output    values in the layout asked for, without padding
//   images    of each image of the batch: the first word of its record, how many it has, its place in the output binding,
//             and the part of the records that holds it
//
// Sums of codewords stand two to a word, in halves of 16 bits: 10 bytes and what the colours add stay far below 65,536.
// A word of four bytes becomes an even word, of its first and third, and an odd one, of the others.
//
// No index reads outside of its book: each is bounded by the book's last codeword first. No index is read from beyond
// its record. All other addresses follow from the geometry and the books, which the host has checked.

struct Params {
    // Per channel: value = byte * scale + bias.
    scale: vec4<f32>,
    bias: vec4<f32>,
    // Units (tiles or words) before this dispatch, and where they end.
    first_unit: u32,
    end_unit: u32,
    // Invocations along x of the dispatch.
    stride: u32,
    // `words`: the row of values (see `value_at`) and the place in it at which the output binding begins.
    first_row: u32,
    first_value: u32,
    // `words`: rows of values that exist; what is beyond is padding.
    end_row: u32,
    // `words`: keep what this pass does not supply, instead of clearing it.
    merge: u32,
    // The first of `images`, how many there are, and of which part are bound.
    first_sample: u32,
    samples: u32,
    @size(12) part: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> records: array<u32>;
@group(0) @binding(2) var<storage, read> books: array<vec4<u32>>;
// The same buffer as words, pairs and quads: an entry point uses one of them.
@group(0) @binding(3) var<storage, read_write> output_words: array<u32>;
@group(0) @binding(3) var<storage, read_write> output_pairs: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> output_quads: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> images: array<vec4<u32>>;

override WORKGROUP_SIZE: u32 = 128u;
override IMAGE_WIDTH: u32 = 224u;
override IMAGE_HEIGHT: u32 = 224u;
// 1 or 3.
override CHANNELS: u32 = 3u;
override INDEX_BITS: u32 = 12u;
// Planes (NCHW) rather than interleaved pixels (NHWC).
override PLANAR: bool = false;
// `words`: values in an output word: 4 (u8), 2 (f16) or 1 (f32).
override VALUES_PER_WORD: u32 = 4u;

// Blocks across, and groups of all their blocks.
override LUMA_WIDTH: u32 = 28u;
override LUMA_GROUPS: u32 = 25u;
override CHROMA_WIDTH: u32 = 14u;
override CHROMA_GROUPS: u32 = 7u;

const HALVES = 0x00ff00ffu;
const LUMA = 0u;
const CHROMA = 1u;

// ---- records ----

struct Record {
    // Its first word.
    first: u32,
    // How many indices it has room for.
    room: u32,
}

fn record_of(image: vec4<u32>) -> Record {
    return Record(image.x, (image.y - (LUMA_GROUPS + CHROMA_GROUPS) * 4u) * 32u / INDEX_BITS);
}

// An index; 0 beyond the record.
fn index_at(record: Record, number: u32) -> u32 {
    let exists = number < record.room;
    let bit = select(0u, number * INDEX_BITS, exists);
    let word = record.first + (LUMA_GROUPS + CHROMA_GROUPS) * 4u + bit / 32u;
    let shift = bit % 32u;
    var index = records[word] >> shift;
    if 32u % INDEX_BITS != 0u && shift + INDEX_BITS > 32u {
        index |= records[word + 1u] << (32u - shift);
    }
    return select(0u, index & ((1u << INDEX_BITS) - 1u), exists);
}

struct Block {
    // The number of its first index.
    index: u32,
    // Its codewords, of which the first so many cover all of it, the others a quarter.
    stages: u32,
    whole: u32,
    // Where its stages are among those of all modes.
    mode: u32,
}

// A block of a component, of whose groups so many precede in the record.
fn block_at(record: Record, component: u32, groups: u32, block: u32) -> Block {
    let first = record.first + (groups + block / 32u) * 4u;
    let group = vec4<u32>(records[first], records[first + 1u], records[first + 2u], records[first + 3u]);
    let place = block % 32u;
    let below = group.yzw & vec3<u32>((1u << place) - 1u);
    // Each mode's number of indices, by inclusion and exclusion a weight for each set of planes.
    let weights = books[component * 3u];
    let more = books[component * 3u + 1u];
    let counts = books[component * 3u + 2u];
    let both = below.x & below.y;
    let one = countOneBits(below);
    let two = countOneBits(vec4<u32>(both, below.xy & below.zz, both & below.z));
    var found: Block;
    found.index = group.x + place * weights.x + one.x * weights.y + one.y * weights.z + two.x * weights.w
        + one.z * more.x + two.y * more.y + two.z * more.z + two.w * more.w;
    let bits = (group.yzw >> vec3<u32>(place)) & vec3<u32>(1u);
    let mode = bits.x | bits.y << 1u | bits.z << 2u;
    found.stages = (counts.x >> (mode * 4u)) & 15u;
    found.whole = (counts.y >> (mode * 4u)) & 15u;
    found.mode = (component * 8u + mode) * 10u;
    return found;
}

// Of a stage of a mode the first quad of its book, and the last codeword there.
fn stage_at(block: Block, stage: u32) -> vec2<u32> {
    return books[6u + block.mode + stage].xy;
}

// ---- sums of codewords ----

struct Luma {
    even: vec4<u32>,
    odd: vec4<u32>,
    // By how much each value is too large.
    excess: u32,
}

// The luma of the tile at a place among tiles, less 128.
fn luma_at(record: Record, x: u32, y: u32) -> Luma {
    let quarter = y % 2u * 2u + x % 2u;
    let block = block_at(record, LUMA, 0u, y / 2u * LUMA_WIDTH + x / 2u);
    var luma: Luma;
    for (var s = 0u; s < block.stages; s++) {
        let stage = stage_at(block, s);
        let whole = s < block.whole;
        let number = block.index + select(4u * s - 3u * block.whole + quarter, s, whole);
        let codeword = min(index_at(record, number), stage.y);
        let rows = books[stage.x + select(codeword, 4u * codeword + quarter, whole)];
        luma.even += rows & vec4<u32>(HALVES);
        luma.odd += (rows >> vec4<u32>(8u)) & vec4<u32>(HALVES);
    }
    luma.excess = 128u * block.stages;
    return luma;
}

// What the colours add to the luma of eight pixels, or four pairs of them.
struct Colours {
    red: vec4<u32>,
    green: vec4<u32>,
    blue: vec4<u32>,
}

// By how much colours are too large.
const COLOUR_EXCESS = vec3<u32>(179u, 207u, 227u);

// Brings sums to their values and limits those, 128 added to each.
fn limited(sums: vec4<u32>, excess: u32) -> vec4<u32> {
    let low = vec4<i32>(sums & vec4<u32>(0xffffu)) - vec4<i32>(i32(excess));
    let high = vec4<i32>(sums >> vec4<u32>(16u)) - vec4<i32>(i32(excess));
    let most = vec4<i32>(255);
    let least = vec4<i32>(0);
    return vec4<u32>(clamp(low, least, most)) | vec4<u32>(clamp(high, least, most)) << vec4<u32>(16u);
}

// The transform from Cb and Cr, 128 added to each, in whole numbers of 1/256; the constants that this takes off and adds
// are those of the definition, moved by 128.
fn colours_of(cb: vec4<u32>, cr: vec4<u32>) -> Colours {
    let all = vec4<u32>(HALVES);
    var colours: Colours;
    colours.red = cr + (((cr * 103u) >> vec4<u32>(8u)) & all);
    let rest = all - cr;
    colours.green = rest + (((cr * 73u + (all - cb) * 88u + vec4<u32>(0x00580058u)) >> vec4<u32>(8u)) & all);
    colours.blue = cb + (((cb * 198u + vec4<u32>(0x00800080u)) >> vec4<u32>(8u)) & all);
    return colours;
}

// A tile of pixels.
struct Tile {
    even: Colours,
    odd: Colours,
    // By how much each value of a channel is too large.
    excess: vec3<u32>,
}

// The colours of the tile at a place among tiles.
fn colours_at(record: Record, x: u32, y: u32) -> Tile {
    let block = block_at(record, CHROMA, LUMA_GROUPS, y / 4u * CHROMA_WIDTH + x / 4u);
    // Of codewords that cover the block: Cb of the upper and the lower half of the tile, the same for even and odd words,
    // and Cr.
    var coarse = vec4<u32>(0u);
    let sixteenth = y % 4u * 4u + x % 4u;
    for (var s = 0u; s < block.whole; s++) {
        let stage = stage_at(block, s);
        let codeword = min(index_at(record, block.index + s), stage.y);
        let quad = books[stage.x + codeword * 8u + sixteenth / 2u];
        let pair = select(quad.xy, quad.zw, sixteenth % 2u != 0u);
        coarse += vec4<u32>(pair.x, pair.x >> 8u, pair.y, pair.y >> 8u) & vec4<u32>(HALVES);
    }
    // 128 remains, for values without a sign.
    let excess = 128u * block.stages - 128u;
    var tile: Tile;
    tile.excess = COLOUR_EXCESS;
    if block.whole == block.stages {
        let cbcr = limited(coarse, excess);
        tile.even = colours_of(cbcr.xxyy, cbcr.zzww);
        tile.odd = tile.even;
        return tile;
    }
    var cb_even = coarse.xxyy;
    var cb_odd = cb_even;
    var cr_even = coarse.zzww;
    var cr_odd = cr_even;
    let quarter = y / 2u % 2u * 2u + x / 2u % 2u;
    let rest = y % 2u * 2u + x % 2u;
    for (var s = block.whole; s < block.stages; s++) {
        let stage = stage_at(block, s);
        let number = block.index + 4u * s - 3u * block.whole + quarter;
        let codeword = min(index_at(record, number), stage.y);
        let quad = stage.x + codeword * 8u + rest * 2u;
        let cb = books[quad];
        let cr = books[quad + 1u];
        cb_even += cb & vec4<u32>(HALVES);
        cb_odd += (cb >> vec4<u32>(8u)) & vec4<u32>(HALVES);
        cr_even += cr & vec4<u32>(HALVES);
        cr_odd += (cr >> vec4<u32>(8u)) & vec4<u32>(HALVES);
    }
    tile.even = colours_of(limited(cb_even, excess), limited(cr_even, excess));
    tile.odd = colours_of(limited(cb_odd, excess), limited(cr_odd, excess));
    return tile;
}

// The tile at a place among tiles; for grey images of one channel.
fn tile_at(record: Record, x: u32, y: u32) -> Tile {
    let luma = luma_at(record, x, y);
    // Luma is 128 more than the sum of its codewords.
    let excess = luma.excess - 128u;
    var tile: Tile;
    if CHANNELS == 1u {
        tile.even.red = luma.even;
        tile.odd.red = luma.odd;
        tile.excess.x = excess;
        return tile;
    }
    tile = colours_at(record, x, y);
    tile.even.red += luma.even;
    tile.even.green += luma.even;
    tile.even.blue += luma.even;
    tile.odd.red += luma.odd;
    tile.odd.green += luma.odd;
    tile.odd.blue += luma.odd;
    tile.excess += vec3<u32>(excess);
    return tile;
}

// Four values side by side.
fn four_values(even: u32, odd: u32, excess: u32) -> vec4<i32> {
    let values = vec4<i32>(vec4<u32>(even & 0xffffu, odd & 0xffffu, even >> 16u, odd >> 16u)) - vec4<i32>(i32(excess));
    return clamp(values, vec4<i32>(0), vec4<i32>(255));
}

// A channel of a row of a tile.
fn channel_row(tile: Tile, row: u32, channel: u32) -> vec4<i32> {
    if channel == 0u {
        return four_values(tile.even.red[row], tile.odd.red[row], tile.excess.x);
    } else if channel == 1u {
        return four_values(tile.even.green[row], tile.odd.green[row], tile.excess.y);
    }
    return four_values(tile.even.blue[row], tile.odd.blue[row], tile.excess.z);
}

// ---- tiles ----

// Where a tile stands.
struct Place {
    // First row of pixels.
    top: u32,
    // Of its first group of four values in the output, in groups.
    group: u32,
}

fn place_at(image: vec4<u32>, x: u32, y: u32) -> Place {
    let width = IMAGE_WIDTH / 4u;
    let top = y * 4u;
    if PLANAR {
        return Place(top, (image.z * CHANNELS * IMAGE_HEIGHT + top) * width + x);
    }
    return Place(top, ((image.z * IMAGE_HEIGHT + top) * width + x) * CHANNELS);
}

// Whether a row of the tile is in the image.
fn is_inside(place: Place, row: u32) -> bool {
    return IMAGE_HEIGHT % 4u == 0u || place.top + row < IMAGE_HEIGHT;
}

// Four values that stand side by side in the output, of the `part`th of as many such groups as there are channels.
fn group_values(tile: Tile, row: u32, part: u32) -> vec4<i32> {
    if PLANAR || CHANNELS == 1u {
        return channel_row(tile, row, part);
    }
    let red = channel_row(tile, row, 0u);
    let green = channel_row(tile, row, 1u);
    let blue = channel_row(tile, row, 2u);
    if part == 0u {
        return vec4<i32>(red.x, green.x, blue.x, red.y);
    } else if part == 1u {
        return vec4<i32>(green.y, blue.y, red.z, green.z);
    }
    return vec4<i32>(blue.z, red.w, green.w, blue.w);
}

// The same group's place in the output, in groups of four values.
fn group_place(place: Place, row: u32, part: u32) -> u32 {
    if PLANAR {
        return place.group + (part * IMAGE_HEIGHT + row) * (IMAGE_WIDTH / 4u);
    }
    return place.group + row * (IMAGE_WIDTH / 4u * CHANNELS) + part;
}

// Per channel constants in the order of a group's values.
fn group_constants(constants: vec4<f32>, part: u32) -> vec4<f32> {
    if PLANAR || CHANNELS == 1u {
        return vec4<f32>(constants[part]);
    } else if part == 0u {
        return constants.xyzx;
    } else if part == 1u {
        return constants.yzxy;
    }
    return constants.zxyz;
}

fn group_floats(tile: Tile, row: u32, part: u32) -> vec4<f32> {
    let values = vec4<f32>(group_values(tile, row, part));
    return fma(values, group_constants(params.scale, part), group_constants(params.bias, part));
}

fn write_group_u8(tile: Tile, place: Place, row: u32, part: u32) {
    output_words[group_place(place, row, part)] = pack4xU8(vec4<u32>(group_values(tile, row, part)));
}

fn write_group_f16(tile: Tile, place: Place, row: u32, part: u32) {
    let values = group_floats(tile, row, part);
    output_pairs[group_place(place, row, part)] = vec2<u32>(pack2x16float(values.xy), pack2x16float(values.zw));
}

fn write_group_f32(tile: Tile, place: Place, row: u32, part: u32) {
    output_quads[group_place(place, row, part)] = bitcast<vec4<u32>>(group_floats(tile, row, part));
}

fn write_row_u8(tile: Tile, place: Place, row: u32) {
    if !is_inside(place, row) {
        return;
    }
    write_group_u8(tile, place, row, 0u);
    if CHANNELS == 3u {
        write_group_u8(tile, place, row, 1u);
        write_group_u8(tile, place, row, 2u);
    }
}

fn write_row_f16(tile: Tile, place: Place, row: u32) {
    if !is_inside(place, row) {
        return;
    }
    write_group_f16(tile, place, row, 0u);
    if CHANNELS == 3u {
        write_group_f16(tile, place, row, 1u);
        write_group_f16(tile, place, row, 2u);
    }
}

fn write_row_f32(tile: Tile, place: Place, row: u32) {
    if !is_inside(place, row) {
        return;
    }
    write_group_f32(tile, place, row, 0u);
    if CHANNELS == 3u {
        write_group_f32(tile, place, row, 1u);
        write_group_f32(tile, place, row, 2u);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn tiles_u8(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = params.first_unit + id.y * params.stride + id.x;
    if unit >= params.end_unit {
        return;
    }
    let x = unit % (IMAGE_WIDTH / 4u);
    let row = unit / (IMAGE_WIDTH / 4u);
    let y = row % ((IMAGE_HEIGHT + 3u) / 4u);
    let image = images[params.first_sample + row / ((IMAGE_HEIGHT + 3u) / 4u)];
    let place = place_at(image, x, y);
    let tile = tile_at(record_of(image), x, y);
    write_row_u8(tile, place, 0u);
    write_row_u8(tile, place, 1u);
    write_row_u8(tile, place, 2u);
    write_row_u8(tile, place, 3u);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn tiles_f16(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = params.first_unit + id.y * params.stride + id.x;
    if unit >= params.end_unit {
        return;
    }
    let x = unit % (IMAGE_WIDTH / 4u);
    let row = unit / (IMAGE_WIDTH / 4u);
    let y = row % ((IMAGE_HEIGHT + 3u) / 4u);
    let image = images[params.first_sample + row / ((IMAGE_HEIGHT + 3u) / 4u)];
    let place = place_at(image, x, y);
    let tile = tile_at(record_of(image), x, y);
    write_row_f16(tile, place, 0u);
    write_row_f16(tile, place, 1u);
    write_row_f16(tile, place, 2u);
    write_row_f16(tile, place, 3u);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn tiles_f32(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = params.first_unit + id.y * params.stride + id.x;
    if unit >= params.end_unit {
        return;
    }
    let x = unit % (IMAGE_WIDTH / 4u);
    let row = unit / (IMAGE_WIDTH / 4u);
    let y = row % ((IMAGE_HEIGHT + 3u) / 4u);
    let image = images[params.first_sample + row / ((IMAGE_HEIGHT + 3u) / 4u)];
    let place = place_at(image, x, y);
    let tile = tile_at(record_of(image), x, y);
    write_row_f32(tile, place, 0u);
    write_row_f32(tile, place, 1u);
    write_row_f32(tile, place, 2u);
    write_row_f32(tile, place, 3u);
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
    sample -= params.first_sample;
    // Differences below zero wrap around to numbers that are never below the count.
    if row >= params.end_row || sample >= params.samples {
        return value;
    }
    let image = images[sample];
    if image.w != params.part {
        return value;
    }
    value.here = true;
    let tile = tile_at(record_of(image), x / 4u, y / 4u);
    value.byte = u32(channel_row(tile, y % 4u, value.channel)[x % 4u]);
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
