//! What a `.qvq` file is: a safetensors file with certain tensors and metadata. FORMAT.md is the specification.
//!
//! `container` knows safetensors and nothing of images; `header` checks everything that any codec shares;
//! `coding` is what depends on the codec, `vq` and `layers` one each; `writer` is the way back.

pub(crate) mod atomic;
pub(crate) mod books;
pub(crate) mod checksum;
pub(crate) mod codec;
pub(crate) mod coding;
pub(crate) mod container;
pub(crate) mod header;
pub(crate) mod index;
pub(crate) mod layers;
pub(crate) mod record;
pub(crate) mod vq;
pub(crate) mod writer;

/// Value of the metadata key `format`.
pub const FORMAT: &str = "qvq";
/// Value of the metadata key `version`.
pub const VERSION: &str = "1";
/// Most codewords of a codebook (2^25).
pub const MAX_CODEWORDS: usize = 1 << 25;
/// The PSNR of a sample reproduced exactly, which has none, and the largest that is recorded, in dB.
pub const MAX_PSNR_DB: f64 = 100.0;
/// Longest header in bytes; the limit of the safetensors library.
pub const MAX_HEADER_LEN: u64 = 100_000_000;
/// Most tensors, and most metadata keys, of a header: far more than there are, so few that a header takes no more memory
/// than several times its length.
pub const MAX_ENTRIES: usize = 65_536;
/// Most sides of a tensor's shape, also one that is unknown.
pub const MAX_SIDES: usize = 16;

/// Names of tensors.
pub(crate) mod tensor {
    pub const CODEBOOK: &str = "codebook";
    pub const INDICES: &str = "indices";
    pub const RECORDS: &str = "records";
    pub const RECORD_OFFSETS: &str = "records.offsets";
    pub const LABELS: &str = "labels";
    pub const CHECKSUMS: &str = "checksums";
    pub const PSNR: &str = "psnr";
    pub const CAPTION_OFFSETS: &str = "captions.offsets";
    pub const CAPTION_BYTES: &str = "captions.bytes";
    /// What no tensor may be called: its checksum would be the header's.
    pub const HEADER: &str = "header";
}

/// Keys of the metadata.
pub(crate) mod key {
    pub const FORMAT: &str = "format";
    pub const VERSION: &str = "version";
    pub const CODEC: &str = "codec";
    pub const IMAGE_WIDTH: &str = "image_width";
    pub const IMAGE_HEIGHT: &str = "image_height";
    pub const CHANNELS: &str = "channels";
    pub const PATCH_WIDTH: &str = "patch_width";
    pub const PATCH_HEIGHT: &str = "patch_height";
    pub const INDEX_BITS: &str = "index_bits";
    pub const SAMPLES: &str = "samples";
    pub const CLASSES: &str = "classes";
    pub const MEAN_PSNR_DB: &str = "mean_psnr_db";
    pub const MAX_ERROR: &str = "max_error";
    pub const ENCODER: &str = "encoder";
    pub const LUMA_MODES: &str = "luma_modes";
    pub const CHROMA_MODES: &str = "chroma_modes";
    pub const HEADER_CRC32C: &str = "header_crc32c";

    /// All that this version of the format gives a meaning, but the tensors' checksums.
    pub const ALL: &[&str] = &[
        FORMAT,
        VERSION,
        CODEC,
        IMAGE_WIDTH,
        IMAGE_HEIGHT,
        CHANNELS,
        PATCH_WIDTH,
        PATCH_HEIGHT,
        INDEX_BITS,
        SAMPLES,
        CLASSES,
        MEAN_PSNR_DB,
        MAX_ERROR,
        ENCODER,
        LUMA_MODES,
        CHROMA_MODES,
        HEADER_CRC32C,
    ];
}
