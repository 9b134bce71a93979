//! What threads and forked processes may share.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{CASES, Random, outputs};
use kuat::loader::{Epoch, Prefetch};
use kuat::{
    Archive, ArchiveWriter, Buffer, BufferPool, CpuDecoder, Decoder, Error, Geometry, NaiveDecoder, OutputSpec,
};

/// Compiles only if threads may share the type, and hand it on.
fn is_shared<T: Send + Sync>() {}

#[test]
fn types_that_threads_share() {
    is_shared::<Archive>();
    is_shared::<Archive<Vec<u8>>>();
    is_shared::<NaiveDecoder>();
    is_shared::<CpuDecoder>();
    is_shared::<Box<dyn Decoder>>();
    is_shared::<BufferPool>();
    is_shared::<Buffer>();
    is_shared::<OutputSpec>();
    is_shared::<Geometry>();
    is_shared::<Epoch>();
    is_shared::<Error>();
    is_shared::<ArchiveWriter<Vec<u8>>>();
    fn is_handed_on<T: Send>() {}
    is_handed_on::<Prefetch<Buffer>>();
}

#[test]
#[cfg(feature = "gpu")]
fn types_of_gpus_that_threads_share() {
    use kuat::gpu::{BatchPart, Device, GpuDecoder, GpuNearest, PendingBatch, Resident, Stream};
    is_shared::<Device>();
    is_shared::<GpuDecoder>();
    is_shared::<Resident>();
    is_shared::<PendingBatch>();
    is_shared::<BatchPart>();
    is_shared::<GpuNearest>();
    is_shared::<Stream<fn(usize) -> kuat::Result<PendingBatch>>>();
}

/// Decodes random batches on `threads` threads at a time, with all kinds of output, and compares them with the oracle's.
fn share(decoder: &dyn Decoder, archive: &Archive<Vec<u8>>, threads: usize, rounds: usize) {
    let (naive, pool) = (NaiveDecoder::new(archive).expect("decoder"), BufferPool::default());
    let specs = outputs(archive.geometry().channels());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (naive, pool, specs) = (&naive, &pool, &specs);
            scope.spawn(move || {
                let mut random = Random::new(thread as u64);
                for round in 0..rounds {
                    let samples = random.indices(1 + round % 3, archive.samples());
                    let rows = archive.rows(samples.iter().map(|&sample| sample as usize)).expect("there");
                    let spec = &specs[(thread + round) % specs.len()];
                    let len = spec.batch_len(archive.geometry(), rows.len());
                    let mut expected = pool.take(len).expect("memory");
                    naive.decode_bytes(&rows.slices(), spec, &mut expected).expect("decoded");
                    let mut found = pool.take(len).expect("memory");
                    decoder.decode_bytes(&rows.slices(), spec, &mut found).expect("decoded");
                    let what = format!("thread {thread}, round {round} on {}", decoder.device_name());
                    common::assert_same(&what, &found, &expected, spec, archive.geometry(), false);
                }
            });
        }
    });
}

#[test]
fn threads_share_a_cpu_decoder() {
    for case in [CASES[0], CASES[2]] {
        let archive = case.archive();
        share(&CpuDecoder::new(&archive).expect("decoder"), &archive, 8, 20);
    }
}

#[test]
#[cfg(feature = "gpu")]
fn threads_share_a_gpu_decoder_and_resident_rows() {
    use kuat::gpu::{Device, GpuDecoder, Resident};
    common::on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        let archive = CASES[2].archive();
        let gpu = GpuDecoder::new(&device, &archive).expect("uploaded");
        let resident = Resident::new(&gpu, &archive, None).expect("fits");
        let spec = OutputSpec::default();
        let rows = archive.rows(0..archive.samples()).expect("there");
        let expected: Vec<u8> = NaiveDecoder::new(&archive).expect("decoder").decode(&rows, &spec).expect("decoded");
        let samples: Vec<usize> = (0..archive.samples()).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| share(&gpu, &archive, 4, 10));
            for background in [false, true] {
                let (resident, samples, expected, spec) = (&resident, &samples, &expected, &spec);
                scope.spawn(move || {
                    for _ in 0..10 {
                        let batch = resident.submit(samples, spec).expect("submitted");
                        // Read on another thread than it was submitted on.
                        let read = std::thread::scope(|scope| {
                            let read = || match background {
                                true => futures::executor::block_on(batch.read_async()),
                                false => batch.read(),
                            };
                            scope.spawn(read).join().expect("no panic")
                        });
                        assert!(read.expect("read") == *expected);
                    }
                });
            }
        });
    });
}

/// Runs `work` in forked children, while threads run `busy`. A child that takes longer than five minutes is ended.
#[cfg(unix)]
fn fork_while(busy: impl Fn() + Sync, children: usize, work: impl Fn() -> bool) {
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    busy();
                }
            });
        }
        let statuses: Vec<_> = (0..children)
            .map(|_| {
                // SAFETY: the child does nothing but `work`, in which it takes no lock that another thread may have held
                // but the allocator's, which glibc and others look after, and leaves without coming back.
                let child = unsafe { libc::fork() };
                assert!(child >= 0, "no child");
                if child == 0 {
                    // SAFETY: a child does not inherit its parent's alarm.
                    unsafe { libc::alarm(300) };
                    let right = work();
                    // SAFETY: nothing of the parent's is to be run.
                    unsafe { libc::_exit(if right { 0 } else { 1 }) }
                }
                let mut status = 0;
                // SAFETY: `status` is an integer, and ours.
                unsafe { libc::waitpid(child, &raw mut status, 0) };
                status
            })
            .collect();
        end.store(true, Ordering::Relaxed);
        assert_eq!(statuses, vec![0; children]);
    });
}

#[test]
#[cfg(unix)]
fn a_child_forked_while_others_decode_does_not_hang() {
    let archive = CASES[2].archive();
    let decoder = CpuDecoder::new(&archive).expect("decoder");
    let pool = BufferPool::new(1 << 16);
    let rows = archive.rows([1, 0]).expect("there");
    let specs = outputs(archive.geometry().channels());
    let expected: Vec<Vec<u8>> = specs
        .iter()
        .map(|spec| {
            let mut expected = vec![0; spec.batch_len(archive.geometry(), 2)];
            decoder.decode_bytes(&rows.slices(), spec, &mut expected).expect("decoded");
            expected
        })
        .collect();
    let decode = |spec: &OutputSpec| {
        let mut output = pool.take(spec.batch_len(archive.geometry(), 2)).expect("memory");
        decoder.decode_bytes(&rows.slices(), spec, &mut output).expect("decoded");
        output
    };
    fork_while(
        || specs.iter().for_each(|spec| drop(decode(spec))),
        200,
        || specs.iter().zip(&expected).all(|(spec, expected)| decode(spec)[..] == expected[..]),
    );
}

#[test]
#[cfg(all(unix, feature = "gpu"))]
fn a_forked_child_that_uses_its_parents_device_gets_an_error() {
    use kuat::gpu::{Device, GpuDecoder};
    common::on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        let archive = CASES[2].archive();
        let gpu = GpuDecoder::new(&device, &archive).expect("uploaded");
        let rows = archive.rows([1, 0]).expect("there");
        let mut expected = vec![0; 2 * archive.geometry().image_len()];
        gpu.decode_into(&rows, &OutputSpec::default(), &mut expected).expect("decoded");
        let batch = gpu.submit(&rows, &OutputSpec::default()).expect("submitted");
        let refused =
            |result: kuat::Result<()>| matches!(result, Err(Error::Gpu { message, .. }) if message.contains("forked"));
        fork_while(
            || std::thread::sleep(std::time::Duration::from_millis(1)),
            3,
            || {
                refused(gpu.submit(&rows, &OutputSpec::default()).map(drop))
                    && refused(batch.wait())
                    && refused(batch.read().map(drop))
                    && refused(futures::executor::block_on(batch.read_async()).map(drop))
                    && refused(GpuDecoder::new(&device, &archive).map(drop))
                    && device.is_lost()
            },
        );
        assert!(batch.read().expect("read") == expected && !device.is_lost());
    });
}
