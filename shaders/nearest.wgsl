// The codeword nearest to each patch: the one at the least squared distance, and of several the first.
//
// The squared distance of a patch p and a codeword c is |p|^2 + (|c|^2 - 2 p.c), all of it in integers and exact. What is
// in brackets is the codeword's score; what counts is which is least. Score and place of a codeword make one number, its
// key: the score times 2^PLACE_BITS, plus the place in the tile. So one minimum finds both, and the first of equals.
//
// A workgroup copies tile after tile of codewords to its own memory, and each invocation compares four patches with every
// codeword of the tile. `short_patches`: patches of at most 64 bytes, which stay in registers. `long_patches`: any,
// read anew for every eight codewords.
//
// Bytes are packed four to a word, in their order from the lowest; zeros fill up the last word of a codeword and the last
// quad (four words) of a patch or of a codeword in a tile.

struct Params {
    // Patches, in all quads' planes of `patches`, and places in the results.
    patches: u32,
    // Codewords of the bound part that this dispatch compares.
    first_codeword: u32,
    end_codeword: u32,
    // The number in the codebook of the bound part's first codeword.
    first_index: u32,
    // Whether the results so far are to be kept where nothing is nearer.
    merge: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// The first quad of every patch, then the second of every patch, and so on.
@group(0) @binding(1) var<storage, read> patches: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> codewords: array<u32>;
@group(0) @binding(3) var<storage, read_write> nearest: array<u32>;
@group(0) @binding(4) var<storage, read_write> distances: array<u32>;

override WORKGROUP_SIZE: u32 = 128u;
// Words and quads of a codeword.
override WORDS: u32 = 3u;
override QUADS: u32 = 1u;
// Codewords of a tile, a multiple of 8: at most 512 quads, and 2^PLACE_BITS.
override TILE: u32 = 512u;
// So many that no key leaves the 31 bits of an i32.
override PLACE_BITS: u32 = 9u;

// The key of no codeword: greater than any other.
const NO_KEY = 0x7fffffff;

var<workgroup> tile: array<vec4<u32>, 512>;
// Of each codeword of the tile the key that it would have with a patch of zeros.
var<workgroup> keys_at_zero: array<u32, 512>;

// A quad of a codeword in the bound part; zeros beyond the codewords to compare.
fn codeword_quad(codeword: u32, quad: u32) -> vec4<u32> {
    var words: vec4<u32>;
    if codeword < params.end_codeword {
        let first = quad * 4u;
        let place = codeword * WORDS + first;
        words.x = codewords[place];
        if first + 1u < WORDS {
            words.y = codewords[place + 1u];
        }
        if first + 2u < WORDS {
            words.z = codewords[place + 2u];
        }
        if first + 3u < WORDS {
            words.w = codewords[place + 3u];
        }
    }
    return words;
}

// Fills the tile with the codewords from `first` on. All invocations of a workgroup call it together.
fn load_tile(first: u32, lane: u32) {
    workgroupBarrier();
    for (var i = lane; i < TILE * QUADS; i += WORKGROUP_SIZE) {
        tile[i] = codeword_quad(first + i / QUADS, i % QUADS);
    }
    workgroupBarrier();
    for (var place = lane; place < TILE; place += WORKGROUP_SIZE) {
        var square = 0u;
        for (var quad = 0u; quad < QUADS; quad++) {
            let words = tile[place * QUADS + quad];
            square += product(words, words, 0u);
        }
        let key = (square << PLACE_BITS) + place;
        keys_at_zero[place] = select(u32(NO_KEY), key, first + place < params.end_codeword);
    }
    workgroupBarrier();
}

// The scalar product of two quads, the first words of which are the given ones of their patches: those that no patch has
// are left out.
fn product(a: vec4<u32>, b: vec4<u32>, first: u32) -> u32 {
    var sum = dot4U8Packed(a.x, b.x);
    if first + 1u < WORDS {
        sum += dot4U8Packed(a.y, b.y);
    }
    if first + 2u < WORDS {
        sum += dot4U8Packed(a.z, b.z);
    }
    if first + 3u < WORDS {
        sum += dot4U8Packed(a.w, b.w);
    }
    return sum;
}

// The keys of a codeword with four patches, from its scalar products with them. Sums that leave 32 bits on the way are back
// in the end.
fn keys_of(key_at_zero: u32, products: vec4<u32>) -> vec4<i32> {
    return bitcast<vec4<i32>>(vec4<u32>(key_at_zero) - (products << vec4<u32>(PLACE_BITS + 1u)));
}

// The four patches of an invocation: their numbers, and the best that is known of each.
struct Four {
    numbers: vec4<u32>,
    nearest: vec4<u32>,
    distances: vec4<u32>,
}

// Neighbouring invocations have neighbouring patches. Those beyond the last repeat it and are not stored.
fn four_at(workgroup: u32, lane: u32) -> Four {
    var four: Four;
    let first = workgroup * (4u * WORKGROUP_SIZE) + lane;
    four.numbers = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u) * WORKGROUP_SIZE;
    four.distances = vec4<u32>(0xffffffffu);
    if params.merge != 0u {
        let n = within(four);
        four.nearest = vec4<u32>(nearest[n.x], nearest[n.y], nearest[n.z], nearest[n.w]);
        four.distances = vec4<u32>(distances[n.x], distances[n.y], distances[n.z], distances[n.w]);
    }
    return four;
}

fn within(four: Four) -> vec4<u32> {
    return min(four.numbers, vec4<u32>(params.patches - 1u));
}

// Takes the best of a tile over where it is nearer than what came before, whose places in the codebook are lower.
fn merged(before: Four, squares: vec4<u32>, keys: vec4<i32>, first: u32) -> Four {
    var four = before;
    let places = bitcast<vec4<u32>>(keys) & vec4<u32>((1u << PLACE_BITS) - 1u);
    let found = bitcast<vec4<u32>>(keys >> vec4<u32>(PLACE_BITS)) + squares;
    let nearer = found < before.distances;
    four.nearest = select(before.nearest, vec4<u32>(params.first_index + first) + places, nearer);
    four.distances = min(found, before.distances);
    return four;
}

fn store_one(number: u32, index: u32, distance: u32) {
    if number < params.patches {
        nearest[number] = index;
        distances[number] = distance;
    }
}

fn store(four: Four) {
    store_one(four.numbers.x, four.nearest.x, four.distances.x);
    store_one(four.numbers.y, four.nearest.y, four.distances.y);
    store_one(four.numbers.z, four.nearest.z, four.distances.z);
    store_one(four.numbers.w, four.nearest.w, four.distances.w);
}

// ---- short patches ----

// The quads of a patch or codeword of at most 64 bytes.
struct Short {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

fn short_patch(number: u32) -> Short {
    var short: Short;
    short.a = patches[number];
    if QUADS > 1u {
        short.b = patches[number + params.patches];
    }
    if QUADS > 2u {
        short.c = patches[number + params.patches * 2u];
    }
    if QUADS > 3u {
        short.d = patches[number + params.patches * 3u];
    }
    return short;
}

fn short_codeword(place: u32) -> Short {
    var short: Short;
    short.a = tile[place * QUADS];
    if QUADS > 1u {
        short.b = tile[place * QUADS + 1u];
    }
    if QUADS > 2u {
        short.c = tile[place * QUADS + 2u];
    }
    if QUADS > 3u {
        short.d = tile[place * QUADS + 3u];
    }
    return short;
}

fn short_product(a: Short, b: Short) -> u32 {
    var sum = product(a.a, b.a, 0u);
    if QUADS > 1u {
        sum += product(a.b, b.b, 4u);
    }
    if QUADS > 2u {
        sum += product(a.c, b.c, 8u);
    }
    if QUADS > 3u {
        sum += product(a.d, b.d, 12u);
    }
    return sum;
}

// The keys of a codeword of the tile with four patches.
fn short_keys(place: u32, p: Short, q: Short, r: Short, s: Short) -> vec4<i32> {
    let c = short_codeword(place);
    let products = vec4<u32>(short_product(p, c), short_product(q, c), short_product(r, c), short_product(s, c));
    return keys_of(keys_at_zero[place], products);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn short_patches(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var four = four_at(workgroup.x, lane);
    let n = within(four);
    let p = short_patch(n.x);
    let q = short_patch(n.y);
    let r = short_patch(n.z);
    let s = short_patch(n.w);
    let squares = vec4<u32>(short_product(p, p), short_product(q, q), short_product(r, r), short_product(s, s));
    for (var first = params.first_codeword; first < params.end_codeword; first += TILE) {
        load_tile(first, lane);
        var keys = vec4<i32>(NO_KEY);
        for (var place = 0u; place < TILE; place += 4u) {
            keys = min(keys, short_keys(place, p, q, r, s));
            keys = min(keys, short_keys(place + 1u, p, q, r, s));
            keys = min(keys, short_keys(place + 2u, p, q, r, s));
            keys = min(keys, short_keys(place + 3u, p, q, r, s));
        }
        four = merged(four, squares, keys, first);
    }
    store(four);
}

// ---- long patches ----

// The same quad of four patches.
struct FourQuads {
    p: vec4<u32>,
    q: vec4<u32>,
    r: vec4<u32>,
    s: vec4<u32>,
}

fn four_quads(n: vec4<u32>, quad: u32) -> FourQuads {
    let plane = quad * params.patches;
    var quads: FourQuads;
    quads.p = patches[plane + n.x];
    quads.q = patches[plane + n.y];
    quads.r = patches[plane + n.z];
    quads.s = patches[plane + n.w];
    return quads;
}

fn four_products(quads: FourQuads, c: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(
        product(quads.p, c, 0u),
        product(quads.q, c, 0u),
        product(quads.r, c, 0u),
        product(quads.s, c, 0u),
    );
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn long_patches(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var four = four_at(workgroup.x, lane);
    let n = within(four);
    var squares: vec4<u32>;
    for (var quad = 0u; quad < QUADS; quad++) {
        let quads = four_quads(n, quad);
        squares += vec4<u32>(
            product(quads.p, quads.p, 0u),
            product(quads.q, quads.q, 0u),
            product(quads.r, quads.r, 0u),
            product(quads.s, quads.s, 0u),
        );
    }
    for (var first = params.first_codeword; first < params.end_codeword; first += TILE) {
        load_tile(first, lane);
        var keys = vec4<i32>(NO_KEY);
        for (var place = 0u; place < TILE; place += 8u) {
            var a: vec4<u32>;
            var b: vec4<u32>;
            var c: vec4<u32>;
            var d: vec4<u32>;
            var e: vec4<u32>;
            var f: vec4<u32>;
            var g: vec4<u32>;
            var h: vec4<u32>;
            for (var quad = 0u; quad < QUADS; quad++) {
                let quads = four_quads(n, quad);
                let at = place * QUADS + quad;
                a += four_products(quads, tile[at]);
                b += four_products(quads, tile[at + QUADS]);
                c += four_products(quads, tile[at + QUADS * 2u]);
                d += four_products(quads, tile[at + QUADS * 3u]);
                e += four_products(quads, tile[at + QUADS * 4u]);
                f += four_products(quads, tile[at + QUADS * 5u]);
                g += four_products(quads, tile[at + QUADS * 6u]);
                h += four_products(quads, tile[at + QUADS * 7u]);
            }
            keys = min(keys, keys_of(keys_at_zero[place], a));
            keys = min(keys, keys_of(keys_at_zero[place + 1u], b));
            keys = min(keys, keys_of(keys_at_zero[place + 2u], c));
            keys = min(keys, keys_of(keys_at_zero[place + 3u], d));
            keys = min(keys, keys_of(keys_at_zero[place + 4u], e));
            keys = min(keys, keys_of(keys_at_zero[place + 5u], f));
            keys = min(keys, keys_of(keys_at_zero[place + 6u], g));
            keys = min(keys, keys_of(keys_at_zero[place + 7u], h));
        }
        four = merged(four, squares, keys, first);
    }
    store(four);
}
