//! The one error type of the library.

use std::path::PathBuf;

use crate::format::codec::Codec;
use crate::verify::SampleProblem;

/// What the library's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, sorted by whose fault it is: the file, the caller, the images being
/// encoded, the GPU, or the operating system. Messages say what was found, what was expected and,
/// where there is something to do, what to do.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    // ---- the operating system ----
    /// A file could not be opened, read, written or renamed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The stream behind an [`ArchiveWriter`](crate::ArchiveWriter) failed.
    #[error("cannot write the archive")]
    Write(#[source] std::io::Error),
    /// There is not enough memory.
    #[error("not enough memory for {bytes} bytes; ask for fewer samples at a time")]
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// The operating system gives no thread.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// The work was cancelled by its [`Progress`](crate::progress::Progress).
    #[error("interrupted; no file was left half written")]
    Interrupted,

    // ---- the file ----
    /// The file is shorter than its own header says.
    #[error("truncated archive: {what} needs {expected} bytes, the file has {found}; copy or download it again")]
    Truncated {
        /// The part that does not fit.
        what: &'static str,
        /// Bytes that the file has.
        found: u64,
        /// Bytes that are needed.
        expected: u64,
    },
    /// Bytes follow the last tensor.
    #[error("the tensors end at byte {expected}, but the file has {found} bytes; is something appended to it?")]
    TrailingBytes {
        /// Bytes that the file has.
        found: u64,
        /// Bytes that the header accounts for.
        expected: u64,
    },
    /// The first eight bytes claim a header that cannot be.
    #[error("not a .qvq archive: its first 8 bytes claim a header of {found} bytes, the limit is {limit}")]
    HeaderLength {
        /// The length claimed.
        found: u64,
        /// The largest length accepted.
        limit: u64,
    },
    /// The header is not the JSON that safetensors asks for.
    #[error("not a .qvq archive: its header is not valid safetensors JSON")]
    HeaderJson(#[source] serde_json::Error),
    /// A required metadata key is absent.
    #[error("not a .qvq archive: metadata key `{key}` is missing")]
    MissingMetadata {
        /// The key.
        key: &'static str,
    },
    /// A metadata value is not what its key asks for.
    #[error("metadata `{key}` is {found:?}, expected {expected}")]
    Metadata {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What would be valid.
        expected: String,
    },
    /// A required tensor is absent.
    #[error("tensor `{tensor}` is missing: {why}")]
    MissingTensor {
        /// Its name.
        tensor: &'static str,
        /// What asks for it.
        why: &'static str,
    },
    /// A tensor's type or shape contradicts the metadata.
    #[error("tensor `{tensor}` is {found}, expected {expected}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// Type and shape found.
        found: String,
        /// Type and shape that the rest of the header asks for.
        expected: String,
    },
    /// A tensor's byte range leaves a hole, overlaps another, or is not the size of its shape.
    #[error("tensor `{tensor}` occupies bytes {begin}..{end} of the data, expected {expected}")]
    TensorRange {
        /// Its name.
        tensor: String,
        /// First byte, relative to the end of the header.
        begin: u64,
        /// One past the last byte.
        end: u64,
        /// The rule that the range breaks.
        expected: String,
    },
    /// The header does not have the checksum it carries.
    #[error(
        "the header is damaged: its CRC-32C is {found:08x}, it should be {expected:08x}; copy or download the file again"
    )]
    HeaderChecksum {
        /// The checksum computed.
        found: u32,
        /// The checksum recorded.
        expected: u32,
    },
    /// A tensor does not have its checksum.
    #[error(
        "tensor `{tensor}` is damaged: its CRC-32C is {found:08x}, recorded is {expected:08x}; copy or download the file again"
    )]
    TensorChecksum {
        /// Its name.
        tensor: String,
        /// The checksum computed.
        found: u32,
        /// The checksum recorded.
        expected: u32,
    },
    /// A sample is damaged; the others are not for that.
    #[error("sample {sample} is damaged: {problem}; copy or download the archive again, or skip or mask such samples")]
    Damaged {
        /// Its number.
        sample: usize,
        /// What is wrong with it.
        problem: SampleProblem,
    },
    /// A file became shorter while it was open.
    #[error("{} was cut short while it was open: it has {found} bytes, at opening it had {expected}", path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
        /// Bytes that it has now.
        found: u64,
        /// Bytes that it had.
        expected: u64,
    },
    /// Checksums are present for some parts of the archive and missing for others.
    #[error("incomplete checksums: `{missing}` is missing although others are present; an archive carries all or none")]
    PartialIntegrity {
        /// The missing key or tensor.
        missing: String,
    },

    // ---- the caller ----
    /// A size of the images or patches is out of range.
    #[error("{field} is {found}, expected {expected}")]
    Geometry {
        /// Which size.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What would be valid.
        expected: &'static str,
    },
    /// An index width that the format does not have.
    #[error("index width is {bits} bits, expected 1 to 25 or 32")]
    IndexWidth {
        /// The width asked for.
        bits: u64,
    },
    /// Codebooks, modes or images that the codec "layers" does not have.
    #[error("{what}: found {found}, expected {expected}")]
    Layers {
        /// What is wrong.
        what: &'static str,
        /// What was found.
        found: String,
        /// What the codec allows.
        expected: String,
    },
    /// A sample number at or beyond the number of samples.
    #[error("sample {sample} does not exist: the archive has {samples} samples, numbered from 0")]
    Sample {
        /// The number asked for.
        sample: usize,
        /// Samples in the archive.
        samples: usize,
    },
    /// An index row is not as long as the geometry and the index width say.
    #[error("index row {row} has {found} bytes, expected {expected}")]
    RowLength {
        /// Position in the batch.
        row: usize,
        /// Its length.
        found: usize,
        /// The right length.
        expected: usize,
    },
    /// A record of layers is not as long as one can be.
    #[error("record {row} has {found} bytes, expected {shortest} to {longest} in whole words of 4")]
    RecordLength {
        /// Position in the batch.
        row: usize,
        /// Its length.
        found: usize,
        /// What its groups take.
        shortest: usize,
        /// What the longest record takes.
        longest: usize,
    },
    /// The output buffer does not have the batch's size.
    #[error("the output buffer has {found} bytes, the batch needs {expected}")]
    OutputLength {
        /// Its length in bytes.
        found: usize,
        /// The right length in bytes.
        expected: usize,
    },
    /// The output buffer's element type is not the one asked for.
    #[error("the output buffer holds {found}, the output specification asks for {expected}")]
    OutputDtype {
        /// Type of the buffer's elements.
        found: &'static str,
        /// Type in the specification.
        expected: &'static str,
    },
    /// Mean and standard deviation that cannot be applied.
    #[error("cannot normalise: {problem}")]
    Normalization {
        /// What is wrong with them.
        problem: String,
    },
    /// Something asked of an archive that only those of another codec have.
    #[error("{}", other_codec(*found, *expected))]
    OtherCodec {
        /// The archive's codec.
        found: Codec,
        /// The codec that has it.
        expected: Codec,
    },
    /// An argument that is out of range or contradicts another.
    #[error("{argument} is {found}, expected {expected}")]
    Argument {
        /// Its name.
        argument: &'static str,
        /// Its value.
        found: String,
        /// What would be valid.
        expected: String,
    },

    // ---- the images being encoded ----
    /// No patch size and codebook reach a goal.
    #[error("{goal} cannot be had; the nearest was {nearest}; {advice}")]
    Goal {
        /// The quality or the size asked for.
        goal: String,
        /// What came nearest.
        nearest: String,
        /// What to do.
        advice: &'static str,
    },
    /// An encoding to the same archive was interrupted and can go on.
    #[error("{} holds an interrupted encoding, {images} of {of} images done; resume it, or delete that folder to begin anew", path.display())]
    Unfinished {
        /// The folder that holds it.
        path: PathBuf,
        /// Images done.
        images: usize,
        /// Images of the source.
        of: usize,
    },
    /// A source holds no image.
    #[error("no images (.jpg, .jpeg, .png, .webp, .bmp) in {}", path.display())]
    NoImages {
        /// The folder or file.
        path: PathBuf,
    },
    /// A line of a manifest, a member of a shard or a batch of CIFAR's is not what it should be.
    #[error("{place}: {found}, expected {expected}")]
    Listing {
        /// The file, and where in it.
        place: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// A folder holds images beside class folders.
    #[error("{} holds images beside class folders that hold images too (such as {}); move them into class folders or away", path.display(), example.display())]
    MixedFolder {
        /// The folder.
        path: PathBuf,
        /// One of the images.
        example: PathBuf,
    },
    /// A file is no image that can be decoded.
    #[cfg(feature = "encode")]
    #[error("cannot decode {}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: image::ImageError,
    },
    /// A picture of which only the beginning is there.
    #[error("{} is cut short: it ends within its pixels; copy or download it again", path.display())]
    ImageCut {
        /// The file.
        path: PathBuf,
    },
    /// A JPEG file of a kind that is not read.
    #[error("{} is a JPEG file with {feature}, which is not read; convert it, to PNG for example", path.display())]
    JpegFeature {
        /// The file.
        path: PathBuf,
        /// What is unusual about it.
        feature: &'static str,
    },
    /// A picture that is too large to decode safely.
    #[error("{} is {width}x{height} pixels, the limit is {limit} pixels (--max-pixels)", path.display())]
    ImageTooLarge {
        /// The file.
        path: PathBuf,
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
        /// The most pixels accepted.
        limit: u64,
    },
    /// A source that is not kuat's own could not give an image.
    #[error("cannot read {name}")]
    Source {
        /// What the source calls the image.
        name: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Every picture of a source was skipped.
    #[error("none of the {files} images could be decoded; the first problem: {first}")]
    AllSkipped {
        /// How many were tried.
        files: usize,
        /// The first one's error.
        first: String,
    },
    /// A source that is compared with an archive is not the one that was encoded.
    #[error(
        "the archive has {samples} samples, but the source {images} images, of which {skipped} were left out according to \
        {}; is it what was encoded?",
        list.display()
    )]
    OtherSource {
        /// Samples of the archive.
        samples: usize,
        /// Images of the source.
        images: usize,
        /// Images that were left out, as far as the list says.
        skipped: usize,
        /// The list of images that were left out, which may not exist.
        list: PathBuf,
    },
    /// The list of images that were left out of an archive does not say which.
    #[error("cannot use {}: {problem}", path.display())]
    SkippedList {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// A bound takes more codewords than a codebook may have.
    #[error(
        "no value may differ by more than {max_error}: that takes {codewords} codewords for the first {images} of {of} \
         images, and a codebook has at most {limit}; {}", fitting(*fits)
    )]
    Bound {
        /// The bound.
        max_error: u8,
        /// Images that were looked at.
        images: usize,
        /// Images of the source.
        of: usize,
        /// The codewords that they take.
        codewords: usize,
        /// The most codewords.
        limit: usize,
        /// The least greater bound that all images would probably fit in, if there is one.
        fits: Option<u8>,
    },
    /// An image that is not what it was when the codebook was made for it.
    #[error("{name} changed while it was encoded: the codebook made for it does not hold the bound; encode again")]
    ImageChanged {
        /// What the source calls it.
        name: String,
    },

    // ---- the GPU ----
    /// No adapter fits what was asked for.
    #[error("no GPU adapter {wanted}; {}", found_adapters(found))]
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// The names of the adapters present.
        found: Vec<String>,
    },
    /// The adapter refused or failed.
    #[error("{adapter}: {action} failed: {message}")]
    Gpu {
        /// The adapter's name.
        adapter: String,
        /// What was tried.
        action: &'static str,
        /// The driver's or wgpu's message.
        message: String,
    },
    /// The GPU's memory is full.
    #[error("{adapter}: {action} failed: the device's memory is full; ask for fewer samples at a time")]
    GpuMemory {
        /// The adapter's name.
        adapter: String,
        /// What was tried.
        action: &'static str,
    },
    /// An archive's index rows do not fit in the device's memory.
    #[error("{adapter}: the index rows take {needed} bytes of device memory, {}; decode batch by batch instead", allowed(*budget))]
    GpuBudget {
        /// The adapter's name.
        adapter: String,
        /// What they take.
        needed: u64,
        /// What was allowed; `None` if the device itself has less.
        budget: Option<u64>,
    },
    /// A decoder's output is not the oracle's.
    #[error(
        "{device} decodes wrongly ({output}): value {place} of the batch differs from the oracle's; please report it"
    )]
    Mismatch {
        /// What decoded.
        device: String,
        /// What was asked for.
        output: String,
        /// The first value that differs.
        place: usize,
    },
    /// The adapter's limits are too low for the smallest piece of the work.
    #[error("{adapter}: {limit} is {found}, at least {needed} is needed")]
    GpuLimit {
        /// The adapter's name.
        adapter: String,
        /// Which limit.
        limit: &'static str,
        /// Its value.
        found: u64,
        /// The least that works.
        needed: u64,
    },
}

fn allowed(budget: Option<u64>) -> String {
    budget.map_or("more than it has".into(), |bytes| format!("{bytes} are allowed"))
}

fn other_codec(found: Codec, expected: Codec) -> String {
    let lacks = match expected {
        Codec::Vq => "no codebook of patches and no index per patch",
        Codec::Layers => "no records of layers",
    };
    format!(
        "the archive's codec is \"{found}\", which has {lacks}; decode images instead, or encode with the codec \"{expected}\""
    )
}

fn fitting(bound: Option<u8>) -> String {
    match bound {
        Some(bound) => format!("by estimate a bound of {bound} fits; so may smaller patches"),
        None => "no greater bound would do; take smaller patches".into(),
    }
}

fn found_adapters(found: &[String]) -> String {
    if found.is_empty() {
        "none was found (on Linux: is a Vulkan driver installed? Debian's software one is mesa-vulkan-drivers)".into()
    } else {
        format!("found: {} (a software adapter is used only when named)", found.join(", "))
    }
}

/// An error and its causes on one line, without those that the messages before them repeat.
pub(crate) fn one_line<'a>(chain: impl Iterator<Item = &'a (dyn std::error::Error + 'static)>) -> String {
    let messages = chain.map(|error| error.to_string().split_whitespace().collect::<Vec<_>>().join(" "));
    messages.fold(String::new(), |text, message| match (text.is_empty(), text.contains(&message)) {
        (true, _) => message,
        (false, true) => text,
        (false, false) => format!("{text}: {message}"),
    })
}

impl Error {
    /// The message followed by those of its causes, on one line.
    pub fn with_causes(&self) -> String {
        let first: &(dyn std::error::Error + 'static) = self;
        one_line(std::iter::successors(Some(first), |error| error.source()))
    }

    /// A closure for `map_err` that adds what was tried and on which file.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { action, path, source }
    }

    /// Of an error in opening an archive: whether its bytes are to blame (it is damaged, or no `.qvq` at all),
    /// rather than the caller or the machine.
    pub fn is_invalid_archive(&self) -> bool {
        matches!(
            self,
            Error::Truncated { .. }
                | Error::TrailingBytes { .. }
                | Error::HeaderLength { .. }
                | Error::HeaderJson(_)
                | Error::MissingMetadata { .. }
                | Error::Metadata { .. }
                | Error::MissingTensor { .. }
                | Error::Tensor { .. }
                | Error::TensorRange { .. }
                | Error::HeaderChecksum { .. }
                | Error::TensorChecksum { .. }
                | Error::Damaged { .. }
                | Error::PartialIntegrity { .. }
                | Error::Geometry { .. }
                | Error::IndexWidth { .. }
                | Error::Layers { .. }
        )
    }
}
