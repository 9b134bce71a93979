//! `cargo bench`: the measurements of `kuat bench` on the CPU and every adapter, over an archive of random indices,
//! the worst case for caches; or over the archive that KUAT_BENCH_ARCHIVE names. Arguments go to `kuat bench`.

use std::path::Path;
use std::process::ExitCode;

use kuat::{ArchiveSpec, ArchiveWriter, Geometry};
use rand::{RngExt, SeedableRng};

const CODEWORDS: usize = 65_536;
const SAMPLES: usize = 512;

fn main() -> kuat::Result<ExitCode> {
    // Cargo's own arguments are not for us.
    let more: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let folder = tempfile::tempdir().map_err(kuat::Error::Write)?;
    let archives = match std::env::var("KUAT_BENCH_ARCHIVE") {
        Ok(path) => vec![path],
        Err(_) => {
            let archive = |patch| {
                let path = folder.path().join(format!("random-{patch}x{patch}.qvq"));
                random_archive(&path, patch).map(|()| path.display().to_string())
            };
            vec![archive(4)?, archive(2)?]
        }
    };
    let adapters: Vec<String> = kuat::gpu::adapters().iter().map(ToString::to_string).collect();
    for archive in archives {
        let adapters = adapters.iter().flat_map(|adapter| ["--adapter", adapter]);
        let arguments = ["kuat", "bench", &archive].into_iter().chain(adapters).chain(more.iter().map(String::as_str));
        let status = kuat::cli::run(arguments.map(Into::into));
        if status != 0 {
            return Ok(status.into());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn random_archive(path: &Path, patch: u32) -> kuat::Result<()> {
    let geometry = Geometry::new((224, 224), 3, (patch, patch))?;
    let mut random = rand_pcg::Pcg64Mcg::seed_from_u64(1);
    let codebook = (0..CODEWORDS * geometry.codeword_len()).map(|_| random.random()).collect();
    let spec = ArchiveSpec { samples: SAMPLES, ..ArchiveSpec::new(geometry, codebook) };
    let mut writer = ArchiveWriter::create(path, spec)?;
    for _ in 0..SAMPLES {
        let row: Vec<u32> = (0..geometry.patches()).map(|_| random.random_range(0..CODEWORDS as u32)).collect();
        writer.push(&row, None, None)?;
    }
    writer.finish_file(None)
}
