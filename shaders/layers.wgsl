// Records of the codec "layers" to pixels.
//
// `blocks_*`: one invocation writes a block of luma, 8x8 pixels, as four tiles of 4x4. Where a block's indices are is found
// by counting bits, so no invocation waits for another. Needs an image width that is a multiple of 4.
//
// `words`: one invocation writes one 32-bit word of the output, value by value. Needs nothing; and it alone can work on
// a part of an image, leaving what other parts supply as it is (`merge`).
//
// Buffers:
//   records   records as stored in the archive
//   books     codewords; values are bytes, too large by 128. A quad holds the four rows of a tile of luma, or of one plane
//             of a tile of chroma. Of codewords that give a value to 2x2 pixels it holds two tiles side by side, a word
//             of Cb and one of Cr of each: upper left, lower left, upper right, lower right
//   output    values in the layout asked for, without padding
//   images    of each image of the batch: the first word of its record, how many it has, its place in the output binding,
//             and the part of the records that holds it
//
// No index reads outside of its book: each is bounded by the book's last codeword first. No index counts that is beyond
// its record. All other addresses follow from the geometry and the books, which the host has checked.

struct Params {
    // Per channel: value = byte * scale + bias.
    scale: vec4<f32>,
    bias: vec4<f32>,
    // Units (blocks or words) before this dispatch, and where they end.
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
    // The first of `images`, how many there are, and of which part are bound.
    first_sample: u32,
    samples: u32,
    @size(12) part: u32,
    // Of luma and of chroma.
    components: array<Component, 2>,
}

// The modes of a component.
struct Component {
    // What each set of a mode's three bits, by its number, adds to the number of indices of a block.
    weights: array<vec4<u32>, 2>,
    // Stages of each mode, and those whose codewords cover the block, in four bits each.
    stages: u32,
    @size(12) whole: u32,
    // Of each mode's ten stages, the first quad of the book and its last codeword.
    books: array<vec4<u32>, 80>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> records: array<u32>;
@group(0) @binding(2) var<storage, read> books: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> images: array<vec4<u32>>;

override INDEX_BITS: u32 = 12u;

// Blocks across and down, and groups of all their blocks.
override LUMA_WIDTH: u32 = 28u;
override LUMA_HEIGHT: u32 = 28u;
override LUMA_GROUPS: u32 = 25u;
override CHROMA_WIDTH: u32 = 14u;
override CHROMA_GROUPS: u32 = 7u;

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

// Four indices, one behind the other.
fn four_indices(record: Record, number: u32) -> vec4<u32> {
    // Numbers wrap around: where the first is beyond the record, those behind it may be the record's first.
    let numbers = number + vec4<u32>(0u, 1u, 2u, 3u);
    let base = select(0u, number, number < record.room);
    let word = record.first + (LUMA_GROUPS + CHROMA_GROUPS) * 4u + base * INDEX_BITS / 32u;
    let a = records[word];
    let b = records[word + 1u];
    let c = records[word + 2u];
    // Bits from the first of these words, of which the indices are in the one with their first bit, and the next.
    let bits = (numbers - base) * INDEX_BITS + base * INDEX_BITS % 32u;
    let low = select(select(vec4<u32>(a), vec4<u32>(b), bits >= vec4<u32>(32u)), vec4<u32>(c), bits >= vec4<u32>(64u));
    let high = select(vec4<u32>(b), vec4<u32>(c), bits >= vec4<u32>(32u));
    let shift = bits % 32u;
    // In two steps, as a shift by 32 is none.
    let indices = (low >> shift) | ((high << (31u - shift)) << vec4<u32>(1u));
    return select(vec4<u32>(0u), indices & vec4<u32>((1u << INDEX_BITS) - 1u), numbers < vec4<u32>(record.room));
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
    let weights = params.components[component].weights[0];
    let more = params.components[component].weights[1];
    let both = below.x & below.y;
    let one = countOneBits(below);
    let two = countOneBits(vec4<u32>(both, below.xy & below.zz, both & below.z));
    var found: Block;
    found.index = group.x + place * weights.x + one.x * weights.y + one.y * weights.z + two.x * weights.w
        + one.z * more.x + two.y * more.y + two.z * more.z + two.w * more.w;
    let bits = (group.yzw >> vec3<u32>(place)) & vec3<u32>(1u);
    let mode = bits.x | bits.y << 1u | bits.z << 2u;
    found.stages = (params.components[component].stages >> (mode * 4u)) & 15u;
    found.whole = (params.components[component].whole >> (mode * 4u)) & 15u;
    found.mode = mode * 10u;
    return found;
}

// The block of luma at a place among blocks, and the block of chroma that holds it.
fn luma_block(record: Record, x: u32, y: u32) -> Block {
    return block_at(record, LUMA, 0u, y * LUMA_WIDTH + x);
}

fn chroma_block(record: Record, x: u32, y: u32) -> Block {
    return block_at(record, CHROMA, LUMA_GROUPS, y / 2u * CHROMA_WIDTH + x / 2u);
}

// The number of the first of the indices of a stage; of a quarter, by its own number.
fn number_at(block: Block, stage: u32, quarter: u32) -> u32 {
    return block.index + select(4u * stage - 3u * block.whole + quarter, stage, stage < block.whole);
}

// Of a stage of a mode the first quad of its book, and the last codeword there.
fn stage_at(component: u32, block: Block, stage: u32) -> vec2<u32> {
    return params.components[component].books[block.mode + stage].xy;
}

// ---- pixels ----

// Four pixels side by side.
struct Pixels {
    red: vec4<i32>,
    green: vec4<i32>,
    blue: vec4<i32>,
}

fn limited(values: vec4<i32>) -> vec4<i32> {
    return clamp(values, vec4<i32>(0), vec4<i32>(255));
}

// Pixels of sums of codewords.
fn pixels_of(luma: vec4<i32>, cb_sum: vec4<i32>, cr_sum: vec4<i32>) -> Pixels {
    let y = luma + 128;
    var pixels: Pixels;
    if CHANNELS == 1u {
        pixels.red = limited(y);
        return pixels;
    }
    let cb = clamp(cb_sum, vec4<i32>(-128), vec4<i32>(127));
    let cr = clamp(cr_sum, vec4<i32>(-128), vec4<i32>(127));
    pixels.red = limited(y + cr + ((103 * cr + 128) >> vec4<u32>(8u)));
    pixels.green = limited(y - cr + ((73 * cr - 88 * cb + 128) >> vec4<u32>(8u)));
    pixels.blue = limited(y + cb + ((198 * cb + 128) >> vec4<u32>(8u)));
    return pixels;
}

fn channel_of(pixels: Pixels, channel: u32) -> vec4<i32> {
    if channel == 0u {
        return pixels.red;
    } else if channel == 1u {
        return pixels.green;
    }
    return pixels.blue;
}

// ---- blocks ----

// Sums of the rows of a tile, two values to a word, in halves of 16 bits: of each row the first and the third value, and the
// second and the fourth. Ten bytes stay far below 65,536.
struct Sums {
    even: vec4<u32>,
    odd: vec4<u32>,
}

fn plus(sums: Sums, quad: vec4<u32>) -> Sums {
    let halves = vec4<u32>(0x00ff00ffu);
    return Sums(sums.even + (quad & halves), sums.odd + ((quad >> vec4<u32>(8u)) & halves));
}

// Sums of two rows of two values, each of which stands for 2x2 pixels.
fn widened(upper: u32, lower: u32) -> Sums {
    let rows = vec4<u32>(upper, upper, lower, lower);
    return Sums(rows, rows);
}

fn row_of(sums: Sums, row: u32, excess: i32) -> vec4<i32> {
    let even = sums.even[row];
    let odd = sums.odd[row];
    return vec4<i32>(vec4<u32>(even & 0xffffu, odd & 0xffffu, even >> 16u, odd >> 16u)) - excess;
}

struct Tile {
    luma: Sums,
    cb: Sums,
    cr: Sums,
}

struct Tiles {
    upper_left: Tile,
    upper_right: Tile,
    lower_left: Tile,
    lower_right: Tile,
    // By how much their values are too large.
    excess: Excess,
}

struct Excess {
    luma: i32,
    chroma: i32,
}

fn refined(tile: Tile, quad: u32) -> Tile {
    return Tile(tile.luma, plus(tile.cb, books[quad]), plus(tile.cr, books[quad + 1u]));
}

// The tiles of the block at a place among blocks.
fn tiles_at(record: Record, x: u32, y: u32) -> Tiles {
    var tiles: Tiles;
    let luma = luma_block(record, x, y);
    tiles.excess.luma = 128 * i32(luma.stages);
    for (var s = 0u; s < luma.stages; s++) {
        let stage = stage_at(LUMA, luma, s);
        let codewords = min(four_indices(record, number_at(luma, s, 0u)), vec4<u32>(stage.y));
        // The tiles of a codeword that covers the block, or a codeword for each.
        let quads = stage.x + select(codewords, 4u * codewords.x + vec4<u32>(0u, 1u, 2u, 3u), s < luma.whole);
        tiles.upper_left.luma = plus(tiles.upper_left.luma, books[quads.x]);
        tiles.upper_right.luma = plus(tiles.upper_right.luma, books[quads.y]);
        tiles.lower_left.luma = plus(tiles.lower_left.luma, books[quads.z]);
        tiles.lower_right.luma = plus(tiles.lower_right.luma, books[quads.w]);
    }
    if CHANNELS == 1u {
        return tiles;
    }
    let chroma = chroma_block(record, x, y);
    tiles.excess.chroma = 128 * i32(chroma.stages);
    let quarter = y % 2u * 2u + x % 2u;
    var upper: Sums;
    var lower: Sums;
    for (var s = 0u; s < chroma.whole; s++) {
        let stage = stage_at(CHROMA, chroma, s);
        let quad = stage.x + 8u * min(index_at(record, number_at(chroma, s, 0u)), stage.y) + 2u * quarter;
        upper = plus(upper, books[quad]);
        lower = plus(lower, books[quad + 1u]);
    }
    tiles.upper_left.cb = widened(upper.even.x, upper.odd.x);
    tiles.upper_left.cr = widened(upper.even.y, upper.odd.y);
    tiles.upper_right.cb = widened(upper.even.z, upper.odd.z);
    tiles.upper_right.cr = widened(upper.even.w, upper.odd.w);
    tiles.lower_left.cb = widened(lower.even.x, lower.odd.x);
    tiles.lower_left.cr = widened(lower.even.y, lower.odd.y);
    tiles.lower_right.cb = widened(lower.even.z, lower.odd.z);
    tiles.lower_right.cr = widened(lower.even.w, lower.odd.w);
    for (var s = chroma.whole; s < chroma.stages; s++) {
        let stage = stage_at(CHROMA, chroma, s);
        let quad = stage.x + 8u * min(index_at(record, number_at(chroma, s, quarter)), stage.y);
        tiles.upper_left = refined(tiles.upper_left, quad);
        tiles.upper_right = refined(tiles.upper_right, quad + 2u);
        tiles.lower_left = refined(tiles.lower_left, quad + 4u);
        tiles.lower_right = refined(tiles.lower_right, quad + 6u);
    }
    return tiles;
}

fn tile_row(tile: Tile, row: u32, excess: Excess) -> Pixels {
    let cb = row_of(tile.cb, row, excess.chroma);
    let cr = row_of(tile.cr, row, excess.chroma);
    return pixels_of(row_of(tile.luma, row, excess.luma), cb, cr);
}

// Where a tile, and the one to its right, stand.
struct Place {
    // Column and row of the first among tiles.
    x: u32,
    y: u32,
    // The first group of four values in the output, in groups.
    group: u32,
}

fn place_at(image: vec4<u32>, x: u32, y: u32) -> Place {
    let width = IMAGE_WIDTH / 4u;
    if PLANAR {
        return Place(x, y, (image.z * CHANNELS * IMAGE_HEIGHT + y * 4u) * width + x);
    }
    return Place(x, y, ((image.z * IMAGE_HEIGHT + y * 4u) * width + x) * CHANNELS);
}

fn next_place(place: Place) -> Place {
    return Place(place.x + 1u, place.y, place.group + select(CHANNELS, 1u, PLANAR));
}

// Whether a row of the tile is in the image.
fn is_inside(place: Place, row: u32) -> bool {
    let across = IMAGE_WIDTH % 8u == 0u || place.x < IMAGE_WIDTH / 4u;
    return across && (IMAGE_HEIGHT % 8u == 0u || place.y * 4u + row < IMAGE_HEIGHT);
}

// Four values that stand side by side in the output, of the `part`th of as many such groups as there are channels.
fn group_values(pixels: Pixels, part: u32) -> vec4<i32> {
    let red = pixels.red;
    let green = pixels.green;
    let blue = pixels.blue;
    if PLANAR || CHANNELS == 1u {
        return channel_of(pixels, part);
    } else if part == 0u {
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

fn group_floats(pixels: Pixels, part: u32) -> vec4<f32> {
    let values = vec4<f32>(group_values(pixels, part));
    return fma(values, group_constants(params.scale, part), group_constants(params.bias, part));
}

fn write_group_u8(pixels: Pixels, place: Place, row: u32, part: u32) {
    output_words[group_place(place, row, part)] = pack4xU8(vec4<u32>(group_values(pixels, part)));
}

fn write_group_f16(pixels: Pixels, place: Place, row: u32, part: u32) {
    let values = group_floats(pixels, part);
    output_pairs[group_place(place, row, part)] = vec2<u32>(pack2x16float(values.xy), pack2x16float(values.zw));
}

fn write_group_f32(pixels: Pixels, place: Place, row: u32, part: u32) {
    output_quads[group_place(place, row, part)] = bitcast<vec4<u32>>(group_floats(pixels, part));
}

fn write_row_u8(tile: Tile, excess: Excess, place: Place, row: u32) {
    if !is_inside(place, row) {
        return;
    }
    let pixels = tile_row(tile, row, excess);
    write_group_u8(pixels, place, row, 0u);
    if CHANNELS == 3u {
        write_group_u8(pixels, place, row, 1u);
        write_group_u8(pixels, place, row, 2u);
    }
}

fn write_row_f16(tile: Tile, excess: Excess, place: Place, row: u32) {
    if !is_inside(place, row) {
        return;
    }
    let pixels = tile_row(tile, row, excess);
    write_group_f16(pixels, place, row, 0u);
    if CHANNELS == 3u {
        write_group_f16(pixels, place, row, 1u);
        write_group_f16(pixels, place, row, 2u);
    }
}

fn write_row_f32(tile: Tile, excess: Excess, place: Place, row: u32) {
    if !is_inside(place, row) {
        return;
    }
    let pixels = tile_row(tile, row, excess);
    write_group_f32(pixels, place, row, 0u);
    if CHANNELS == 3u {
        write_group_f32(pixels, place, row, 1u);
        write_group_f32(pixels, place, row, 2u);
    }
}

struct Unit {
    image: vec4<u32>,
    // The place of the block among blocks.
    x: u32,
    y: u32,
}

fn unit_at(unit: u32) -> Unit {
    let row = unit / LUMA_WIDTH;
    return Unit(images[params.first_sample + row / LUMA_HEIGHT], unit % LUMA_WIDTH, row % LUMA_HEIGHT);
}

// Two tiles side by side, row by row.
fn write_pair_u8(left: Tile, right: Tile, excess: Excess, place: Place) {
    let next = next_place(place);
    write_row_u8(left, excess, place, 0u);
    write_row_u8(right, excess, next, 0u);
    write_row_u8(left, excess, place, 1u);
    write_row_u8(right, excess, next, 1u);
    write_row_u8(left, excess, place, 2u);
    write_row_u8(right, excess, next, 2u);
    write_row_u8(left, excess, place, 3u);
    write_row_u8(right, excess, next, 3u);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn blocks_u8(@builtin(global_invocation_id) id: vec3<u32>) {
    let number = params.first_unit + id.y * params.stride + id.x;
    if number >= params.end_unit {
        return;
    }
    let unit = unit_at(number);
    let tiles = tiles_at(record_of(unit.image), unit.x, unit.y);
    let upper = place_at(unit.image, unit.x * 2u, unit.y * 2u);
    let lower = place_at(unit.image, unit.x * 2u, unit.y * 2u + 1u);
    write_pair_u8(tiles.upper_left, tiles.upper_right, tiles.excess, upper);
    write_pair_u8(tiles.lower_left, tiles.lower_right, tiles.excess, lower);
}

// Two tiles side by side, row by row.
fn write_pair_f16(left: Tile, right: Tile, excess: Excess, place: Place) {
    let next = next_place(place);
    write_row_f16(left, excess, place, 0u);
    write_row_f16(right, excess, next, 0u);
    write_row_f16(left, excess, place, 1u);
    write_row_f16(right, excess, next, 1u);
    write_row_f16(left, excess, place, 2u);
    write_row_f16(right, excess, next, 2u);
    write_row_f16(left, excess, place, 3u);
    write_row_f16(right, excess, next, 3u);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn blocks_f16(@builtin(global_invocation_id) id: vec3<u32>) {
    let number = params.first_unit + id.y * params.stride + id.x;
    if number >= params.end_unit {
        return;
    }
    let unit = unit_at(number);
    let tiles = tiles_at(record_of(unit.image), unit.x, unit.y);
    let upper = place_at(unit.image, unit.x * 2u, unit.y * 2u);
    let lower = place_at(unit.image, unit.x * 2u, unit.y * 2u + 1u);
    write_pair_f16(tiles.upper_left, tiles.upper_right, tiles.excess, upper);
    write_pair_f16(tiles.lower_left, tiles.lower_right, tiles.excess, lower);
}

// Two tiles side by side, row by row.
fn write_pair_f32(left: Tile, right: Tile, excess: Excess, place: Place) {
    let next = next_place(place);
    write_row_f32(left, excess, place, 0u);
    write_row_f32(right, excess, next, 0u);
    write_row_f32(left, excess, place, 1u);
    write_row_f32(right, excess, next, 1u);
    write_row_f32(left, excess, place, 2u);
    write_row_f32(right, excess, next, 2u);
    write_row_f32(left, excess, place, 3u);
    write_row_f32(right, excess, next, 3u);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn blocks_f32(@builtin(global_invocation_id) id: vec3<u32>) {
    let number = params.first_unit + id.y * params.stride + id.x;
    if number >= params.end_unit {
        return;
    }
    let unit = unit_at(number);
    let tiles = tiles_at(record_of(unit.image), unit.x, unit.y);
    let upper = place_at(unit.image, unit.x * 2u, unit.y * 2u);
    let lower = place_at(unit.image, unit.x * 2u, unit.y * 2u + 1u);
    write_pair_f32(tiles.upper_left, tiles.upper_right, tiles.excess, upper);
    write_pair_f32(tiles.lower_left, tiles.lower_right, tiles.excess, lower);
}

// ---- words ----

// A value among those of a quad, 16 bytes.
fn value_of(quad: vec4<u32>, number: u32) -> i32 {
    return i32((quad[number / 4u] >> (number % 4u * 8u)) & 255u) - 128;
}

// The pixel at a place, as the first of four.
fn pixel_at(record: Record, x: u32, y: u32) -> Pixels {
    let luma = luma_block(record, x / 8u, y / 8u);
    // Of 4x4 pixels, and the place among those of a tile.
    let quarter = y / 4u % 2u * 2u + x / 4u % 2u;
    let place = y % 4u * 4u + x % 4u;
    var luma_sum = 0;
    for (var s = 0u; s < luma.stages; s++) {
        let stage = stage_at(LUMA, luma, s);
        let codeword = min(index_at(record, number_at(luma, s, quarter)), stage.y);
        let quad = stage.x + select(codeword, 4u * codeword + quarter, s < luma.whole);
        luma_sum += value_of(books[quad], place);
    }
    var cb_sum = 0;
    var cr_sum = 0;
    if CHANNELS == 3u {
        let chroma = chroma_block(record, x / 8u, y / 8u);
        let chroma_quarter = y / 8u % 2u * 2u + x / 8u % 2u;
        // Of 2x2 pixels among those of two tiles side by side.
        let small_place = x / 4u % 2u * 8u + x / 2u % 2u * 2u + y / 2u % 2u;
        for (var s = 0u; s < chroma.stages; s++) {
            let stage = stage_at(CHROMA, chroma, s);
            let codeword = min(index_at(record, number_at(chroma, s, chroma_quarter)), stage.y);
            if s < chroma.whole {
                let quad = books[stage.x + 8u * codeword + 2u * chroma_quarter + y / 4u % 2u];
                cb_sum += value_of(quad, small_place);
                cr_sum += value_of(quad, small_place + 4u);
            } else {
                let quad = stage.x + 8u * codeword + 2u * quarter;
                cb_sum += value_of(books[quad], place);
                cr_sum += value_of(books[quad + 1u], place);
            }
        }
    }
    return pixels_of(vec4<i32>(luma_sum), vec4<i32>(cb_sum), vec4<i32>(cr_sum));
}

fn value_at(position: Position) -> Value {
    let image = images[position.sample];
    if image.w != params.part {
        return Value(0u, false);
    }
    let pixel = pixel_at(record_of(image), position.x, position.y);
    return Value(u32(channel_of(pixel, position.channel).x), true);
}
