//! Devices that fail: lost, full, hung, too small, misused. Each gives an error that names the adapter and the cause, and
//! a device that is opened anew works.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "gpu")]

mod common;

use std::time::Duration;

use common::{CASES, Case, on_every_adapter};
use kuat::gpu::{Device, GpuDecoder, GpuNearest, Resident, Select, Stream, wgpu};
use kuat::{Archive, Decoder, Error, NaiveDecoder, OutputSpec};

/// An archive, its decoder on a device, and what it decodes to.
struct Work {
    archive: Archive<Vec<u8>>,
    gpu: GpuDecoder,
    expected: Vec<u8>,
}

impl Work {
    fn new(device: &Device) -> Self {
        let archive = CASES[0].archive();
        let gpu = GpuDecoder::new(device, &archive).expect("uploaded");
        let naive = NaiveDecoder::new(&archive).expect("decoder");
        let expected = naive.decode(&archive.rows(0..5).expect("there"), &OutputSpec::default()).expect("decoded");
        Self { archive, gpu, expected }
    }

    fn decode(&self) -> kuat::Result<()> {
        let rows = self.archive.rows(0..5).expect("there");
        let found: Vec<u8> = self.gpu.decode(&rows, &OutputSpec::default())?;
        assert!(found == self.expected);
        Ok(())
    }

    fn submit(&self) -> kuat::Result<kuat::gpu::PendingBatch> {
        self.gpu.submit(&self.archive.rows(0..5).expect("there"), &OutputSpec::default())
    }
}

/// A device opened anew works.
fn assert_works(select: &Select) {
    Work::new(&Device::open(select).expect("the adapter opens")).decode().expect("decoded");
}

/// An error of the device's, which names the adapter and the cause.
fn assert_names<T: std::fmt::Debug>(device: &Device, result: kuat::Result<T>, cause: &str) {
    let error = result.expect_err("the device fails");
    assert!(matches!(error, Error::Gpu { .. } | Error::GpuMemory { .. }), "{error:?}");
    let message = error.to_string();
    eprintln!("    {message}");
    assert!(message.starts_with(&device.description().to_string()) && message.contains(cause), "{message}");
}

/// What of a device is done when it is lost.
type Action = fn(&Work) -> kuat::Result<()>;

const ACTIONS: &[(&str, Action)] = &[
    ("decode", Work::decode),
    ("submit and wait", |work| work.submit()?.wait()),
    ("submit and read", |work| work.submit()?.read().map(drop)),
    ("read in the background", |work| futures::executor::block_on(work.submit()?.read_async()).map(drop)),
    ("a stream", |work| {
        let mut stream = Stream::new(5, |_| work.submit());
        let mut pixels = vec![0; work.expected.len()];
        (0..5).try_for_each(|_| stream.read_into(&mut pixels))
    }),
    ("resident rows", |work| {
        let resident = Resident::new(&work.gpu, &work.archive, None)?;
        resident.submit(&[0], &OutputSpec::default())?.read().map(drop)
    }),
    ("the search", |work| {
        let search = GpuNearest::new(work.gpu.device(), &[1, 2, 3, 4], 2)?;
        search.nearest(&[1, 2], &mut [0], &mut [0])
    }),
    ("finish", |work| work.gpu.device().finish()),
    ("time_kernel", |work| work.gpu.time_kernel(&work.archive.rows(0..5)?, &OutputSpec::default(), 1).map(drop)),
    ("time_upload", |work| work.gpu.time_upload(&work.archive.rows(0..5)?, &OutputSpec::default(), 1).map(drop)),
    ("time_stream", |work| {
        work.gpu.time_stream(&[work.archive.rows(0..5)?.slices()], &OutputSpec::default()).map(drop)
    }),
    ("a new decoder", |work| {
        GpuDecoder::new(work.gpu.device(), &work.archive)?
            .submit(&work.archive.rows([0])?, &OutputSpec::default())?
            .wait()
    }),
];

#[test]
fn whatever_is_done_on_a_destroyed_device_is_an_error() {
    on_every_adapter(|select| {
        for (name, action) in ACTIONS {
            let device = Device::open(select).expect("the adapter opens");
            let work = Work::new(&device);
            action(&work).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!device.is_lost());
            device.raw().destroy();
            assert_names(&device, action(&work), "destroyed");
            assert!(device.is_lost(), "{name}");
            // At once, from now on.
            assert_names(&device, work.decode(), "destroyed");
            assert_names(&device, GpuDecoder::new(&device, &work.archive), "destroyed");
        }
        assert_works(select);
    });
}

#[test]
fn batches_in_flight_when_a_device_is_destroyed_are_right_or_errors() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        let work = Work::new(&device);
        let batches: Vec<_> = (0..3).map(|_| work.submit().expect("submitted")).collect();
        let mut stream = Stream::new(9, |_| work.submit());
        let mut pixels = vec![0; work.expected.len()];
        stream.read_into(&mut pixels).expect("read");
        device.raw().destroy();
        for batch in &batches {
            batch.read().map_or_else(
                |error| assert_names::<()>(&device, Err(error), "lost"),
                |found| assert!(found == work.expected),
            );
        }
        while stream.read_into(&mut pixels).is_ok() {
            assert!(pixels == work.expected);
        }
        assert_names(&device, work.decode(), "destroyed");
        assert_works(select);
    });
}

#[test]
fn the_loss_of_an_adopted_device_is_found_out_in_waiting_for_it() {
    on_every_adapter(|select| {
        for (name, action) in ACTIONS {
            // One of the caller's own, without handlers: an error that nobody catches would end the process.
            let (raw, queue) = raw_device(select);
            let device = Device::adopt(raw.clone(), queue).expect("adopted");
            let work = Work::new(&device);
            action(&work).unwrap_or_else(|error| panic!("{name}: {error}"));
            raw.destroy();
            assert_names(&device, action(&work), "");
        }
        assert_works(select);
    });
}

/// A device that kuat has not opened.
fn raw_device(select: &Select) -> (wgpu::Device, wgpu::Queue) {
    let Select::Named(name) = select else { panic!("{select:?}") };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let is_named = |adapter: &wgpu::Adapter| {
        let info = adapter.get_info();
        *name == format!("{} ({})", info.name, info.backend.to_str())
    };
    let adapter = adapters.into_iter().find(is_named).expect("an adapter of the list");
    let required_limits = adapter.limits();
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    pollster::block_on(adapter.request_device(&descriptor)).expect("the adapter opens")
}

#[test]
fn a_mistake_of_the_callers_own_is_the_error_of_the_next_call_and_no_other() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        let work = Work::new(&device);
        let size = device.raw().limits().max_buffer_size + 4;
        let usage = wgpu::BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        let _refused = device.raw().create_buffer(&descriptor);
        assert_names(&device, work.submit(), "greater than the maximum buffer size");
        assert!(!device.is_lost());
        work.decode().expect("decoded");
    });
}

#[test]
fn a_device_without_the_limits_that_shaders_rely_on_is_refused_by_name() {
    type Lower = fn(&mut wgpu::Limits);
    let lowered: &[(&str, u64, Lower)] = &[
        ("max_bind_groups", 0, |limits| limits.max_bind_groups = 0),
        ("max_bindings_per_bind_group", 4, |limits| limits.max_bindings_per_bind_group = 4),
        ("max_storage_buffers_per_shader_stage", 3, |limits| limits.max_storage_buffers_per_shader_stage = 3),
        ("max_uniform_buffers_per_shader_stage", 0, |limits| limits.max_uniform_buffers_per_shader_stage = 0),
        ("max_uniform_buffer_binding_size", 100, |limits| limits.max_uniform_buffer_binding_size = 100),
        ("max_buffer_size", 1000, |limits| limits.max_buffer_size = 1000),
        ("max_compute_invocations_per_workgroup", 0, |limits| limits.max_compute_invocations_per_workgroup = 0),
        ("max_compute_workgroup_size_x", 0, |limits| limits.max_compute_workgroup_size_x = 0),
        ("max_compute_workgroup_size_y", 0, |limits| limits.max_compute_workgroup_size_y = 0),
        ("max_compute_workgroup_size_z", 0, |limits| limits.max_compute_workgroup_size_z = 0),
        ("max_compute_workgroups_per_dimension", 0, |limits| limits.max_compute_workgroups_per_dimension = 0),
    ];
    on_every_adapter(|select| {
        for (name, low, lower) in lowered {
            match Device::open_with_limits(select, lower) {
                Err(error @ Error::GpuLimit { limit, found, needed, .. }) => {
                    eprintln!("    {error}");
                    assert!(limit == *name && found == *low && found < needed, "{error}");
                }
                found => panic!("{name}: {found:?}"),
            }
        }
        let archive = CASES[0].archive();
        // What a piece takes at least depends on the archive, or on what is done.
        let device =
            Device::open_with_limits(select, |limits| limits.max_storage_buffer_binding_size = 16).expect("opens");
        match GpuDecoder::new(&device, &archive) {
            Err(Error::GpuLimit { limit: "max_storage_buffer_binding_size", found: 16, needed: 48, .. }) => {}
            found => panic!("{found:?}"),
        }
        let device =
            Device::open_with_limits(select, |limits| limits.max_compute_workgroup_storage_size = 8192).expect("opens");
        Work::new(&device).decode().expect("decoders do without");
        match GpuNearest::new(&device, &[1, 2, 3, 4], 2) {
            Err(Error::GpuLimit {
                limit: "max_compute_workgroup_storage_size", found: 8192, needed: 10_240, ..
            }) => {}
            found => panic!("{found:?}"),
        }
        // A limit above the adapter's.
        let refused = Device::open_with_limits(select, |limits| limits.max_bind_groups += 1);
        assert!(matches!(refused, Err(Error::Gpu { action: "opening the device", .. })), "{refused:?}");
    });
}

#[test]
fn the_least_limits_that_are_not_refused_decode() {
    on_every_adapter(|select| {
        let device = Device::open_with_limits(select, |limits| {
            limits.max_bind_groups = 1;
            limits.max_bindings_per_bind_group = 5;
            limits.max_storage_buffers_per_shader_stage = 4;
            limits.max_uniform_buffers_per_shader_stage = 1;
            limits.max_uniform_buffer_binding_size = 4096;
            limits.max_compute_workgroup_storage_size = 10_240;
            limits.max_compute_invocations_per_workgroup = 1;
            limits.max_compute_workgroup_size_x = 1;
            limits.max_compute_workgroup_size_y = 1;
            limits.max_compute_workgroup_size_z = 1;
        })
        .expect("opens");
        Work::new(&device).decode().expect("decoded");
        let search = GpuNearest::new(&device, &[1, 2, 3, 4, 9, 9], 2).expect("uploaded");
        let (mut nearest, mut distances) = ([7; 2], [7; 2]);
        search.nearest(&[3, 3, 9, 8], &mut nearest, &mut distances).expect("searched");
        assert_eq!((nearest, distances), ([1, 2], [1, 1]));
    });
}

#[test]
fn more_samples_than_shaders_can_number_cannot_be_resident() {
    // 2^32 index rows of a byte, none of which takes room on a disk.
    let samples = 1_u64 << 32;
    let header = format!(
        r#"{{"__metadata__":{{"format":"qvq","version":"1","codec":"vq","index_bits":"8","samples":"{samples}",
        "image_width":"1","image_height":"1","channels":"1","patch_width":"1","patch_height":"1"}},
        "indices":{{"dtype":"U8","shape":[{samples},1,1],"data_offsets":[0,{samples}]}},
        "codebook":{{"dtype":"U8","shape":[1,1,1,1],"data_offsets":[{samples},{}]}}}}"#,
        samples + 1
    );
    let file = tempfile::NamedTempFile::new().expect("a file");
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    std::fs::write(file.path(), &bytes).expect("written");
    file.as_file().set_len(bytes.len() as u64 + samples + 1).expect("space that is not taken");
    let archive = Archive::open(file.path()).expect("opens");
    on_every_adapter(|select| {
        let gpu = GpuDecoder::new(&Device::open(select).expect("the adapter opens"), &archive).expect("uploaded");
        match Resident::new(&gpu, &archive, None) {
            Err(error @ Error::GpuLimit { found: 0xffff_ffff, needed: 0x1_0000_0000, .. }) => eprintln!("    {error}"),
            found => panic!("{found:?}"),
        }
        assert!(matches!(Resident::new(&gpu, &archive, Some(1 << 30)), Err(Error::GpuBudget { .. })));
    });
}

/// What the drivers of Vulkan do, by a layer between them and wgpu. Only a new process can have it, so tests start
/// themselves anew.
#[cfg(target_os = "linux")]
mod of_drivers {
    use std::ffi::{CString, c_int};
    use std::os::unix::ffi::OsStrExt;
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    use kuat::gpu::adapters;

    use super::*;

    /// What goes wrong, as the layer numbers it.
    #[derive(Clone, Copy)]
    enum Fault {
        None,
        /// Allocations of more bytes fail.
        Full(u64),
        /// Submissions fail for want of memory.
        SubmitsFull,
        /// Submissions and all that follows.
        Lost,
        /// Waits and all that follows.
        LostInWaits,
        /// Waits have no end.
        Hung,
    }

    /// Says what goes wrong from now on, and returns how many calls failed so far.
    fn set(fault: Fault) -> u64 {
        static SET: OnceLock<extern "C" fn(u32, u64) -> u64> = OnceLock::new();
        let set = SET.get_or_init(|| {
            let path = PathBuf::from(std::env::var_os("KUAT_FAULTS").expect("set by the test"));
            let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
            // SAFETY: the layer is a library that was loaded before, and its function of this name has this type.
            unsafe {
                let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
                assert!(!library.is_null(), "no layer at {path:?}");
                let function = libc::dlsym(library, c"kuat_fault".as_ptr());
                std::mem::transmute::<*mut libc::c_void, Option<extern "C" fn(u32, u64) -> u64>>(function)
            }
            .expect("the layer's function")
        });
        match fault {
            Fault::None => set(0, 0),
            Fault::Full(most) => set(1, most),
            Fault::SubmitsFull => set(2, 0),
            Fault::Lost => set(3, 0),
            Fault::LostInWaits => set(4, 0),
            Fault::Hung => set(5, 0),
        }
    }

    /// Runs a test, by its name, on the adapters of Vulkan in a process with the layer. No panic may be printed there.
    fn with_faults(name: &str, test: impl Fn(&Select)) {
        if std::env::var_os("KUAT_FAULTS").is_some() {
            // SAFETY: changes nothing in memory. The process is ended if it hangs.
            unsafe { libc::alarm(600) };
            for adapter in adapters().into_iter().filter(|adapter| adapter.api == "vulkan") {
                eprintln!("on {adapter}");
                test(&Select::Named(adapter.to_string()));
                set(Fault::None);
            }
            return;
        }
        if adapters().iter().all(|adapter| adapter.api != "vulkan") {
            return assert!(std::env::var_os("KUAT_TEST_WITHOUT_GPU").is_some(), "no adapter of Vulkan");
        }
        let (folder, layer) = layer();
        let output = Command::new(std::env::current_exe().expect("a path"))
            .args([&format!("of_drivers::{name}"), "--exact", "--nocapture"])
            .env("KUAT_FAULTS", layer)
            .env("VK_LAYER_PATH", folder)
            // More than a test leaves of the address space.
            .env("RUST_MIN_STACK", (1 << 30).to_string())
            .env("VK_INSTANCE_LAYERS", "VK_LAYER_KUAT_faults")
            .output()
            .expect("started");
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        eprintln!("{stderr}");
        assert!(output.status.success() && stdout.contains("1 passed"), "{}: {stdout}", output.status);
        assert!(stderr.contains("on ") && !stderr.contains("panicked"));
    }

    /// The compiled layer, and the folder with it and its manifest.
    fn layer() -> (PathBuf, PathBuf) {
        static LAYER: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
        let make = || {
            let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("faults");
            std::fs::create_dir_all(&folder).expect("a folder");
            let layer = folder.join("libkuat_faults.so");
            let done = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()))
                .args(["--edition", "2024", "--crate-type", "cdylib", "-C", "panic=abort", "-O", "-o"])
                .args([&layer, &PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/faults/layer.rs")])
                .status()
                .expect("rustc");
            assert!(done.success());
            let manifest = r#"{"file_format_version": "1.1.2", "layer": {"name": "VK_LAYER_KUAT_faults", "type": "INSTANCE",
                "library_path": "./libkuat_faults.so", "api_version": "1.3.0", "implementation_version": "1",
                "description": "Calls fail as those of a GPU that is lost, full or hung"}}"#;
            std::fs::write(folder.join("faults.json"), manifest).expect("written");
            (folder, layer)
        };
        LAYER.get_or_init(make).clone()
    }

    #[test]
    fn a_device_that_the_driver_gives_up_is_an_error_whatever_is_done() {
        with_faults("a_device_that_the_driver_gives_up_is_an_error_whatever_is_done", |select| {
            for (fault, opened) in
                [(Fault::Lost, true), (Fault::LostInWaits, true), (Fault::Lost, false), (Fault::LostInWaits, false)]
            {
                for (name, action) in ACTIONS.iter().step_by(if opened { 1 } else { 4 }) {
                    let device = if opened {
                        Device::open(select).expect("the adapter opens")
                    } else {
                        let (raw, queue) = raw_device(select);
                        Device::adopt(raw, queue).expect("adopted")
                    };
                    let work = Work::new(&device);
                    action(&work).unwrap_or_else(|error| panic!("{name}: {error}"));
                    let failed = set(fault);
                    assert_names(&device, action(&work), "lost");
                    assert_names(&device, work.decode(), "lost");
                    assert!(device.is_lost() && set(fault) > failed, "{name}");
                    // The other devices of this process are as they were, and so is a new one.
                    set(Fault::None);
                    drop((work, device));
                }
                assert_works(select);
            }
        });
    }

    #[test]
    fn a_driver_that_hangs_is_an_error_after_a_time_and_blocks_nobody_at_the_end() {
        with_faults("a_driver_that_hangs_is_an_error_after_a_time_and_blocks_nobody_at_the_end", |select| {
            for (name, action) in ACTIONS {
                let device = Device::open(select).expect("the adapter opens");
                let work = Work::new(&device);
                action(&work).unwrap_or_else(|error| panic!("{name}: {error}"));
                device.set_time_limit(Duration::from_millis(30));
                set(Fault::Hung);
                assert_names(&device, action(&work), "no answer for 30ms");
                assert_names(&device, work.decode(), "no answer for 30ms");
                assert!(device.is_lost(), "{name}");
                // Still hung: were the queue waited for, this would have no end.
                drop((work, device));
                set(Fault::None);
            }
            assert_works(select);
        });
    }

    #[test]
    fn batches_too_large_for_the_devices_memory_are_decoded_in_halves() {
        with_faults("batches_too_large_for_the_devices_memory_are_decoded_in_halves", |select| {
            let device = Device::open(select).expect("the adapter opens");
            let work = Work::new(&device);
            let spec = OutputSpec::default();
            // 60 MB, of which a quarter fits.
            let rows = work.archive.rows([0; 400]).expect("there");
            let failed = set(Fault::Full(18_000_000));
            let found: Vec<u8> = work.gpu.decode(&rows, &spec).expect("decoded");
            let image = &work.expected[..work.archive.geometry().image_len()];
            assert!(found.chunks(image.len()).all(|found| found == image));
            assert!(set(Fault::Full(18_000_000)) >= failed + 3);
            // What stays on the device is not cut.
            let error = work.gpu.submit(&rows, &spec).expect_err("it is full");
            assert!(matches!(error, Error::GpuMemory { .. }), "{error:?}");
            assert_names::<()>(&device, Err(error), "memory is full; ask for fewer samples");
            // A single image of 48 MB, of which there are 300 rows of 62,500 bytes.
            let large =
                Case { image: (4000, 4000), channels: 3, patch: (16, 16), codewords: 9, bits: Some(8), samples: 300 };
            let archive = large.archive();
            let gpu = GpuDecoder::new(&device, &archive).expect("uploaded");
            let decoded = gpu.decode::<u8>(&archive.rows([0]).expect("there"), &spec);
            assert_names(&device, decoded.map(|_| ()), "memory is full");
            let resident = Resident::new(&gpu, &archive, None);
            assert!(matches!(resident, Err(Error::GpuBudget { budget: None, .. })), "{resident:?}");
            // Nothing of that stays.
            assert!(!device.is_lost());
            set(Fault::None);
            work.decode().expect("decoded");
            work.submit().expect("submitted").wait().expect("decoded");
            // An upload that has no room costs the device.
            set(Fault::Full(1 << 20));
            let (patches, mut nearest, mut distances) = (vec![1; 1 << 21], vec![0; 1 << 19], vec![0; 1 << 19]);
            let search = GpuNearest::new(&device, &[1; 400], 4)
                .and_then(|search| search.nearest(&patches, &mut nearest, &mut distances));
            assert_names(&device, search, "emory");
            set(Fault::None);
            assert_works(select);
        });
    }

    #[test]
    fn a_submission_without_memory_costs_the_device() {
        with_faults("a_submission_without_memory_costs_the_device", |select| {
            let device = Device::open(select).expect("the adapter opens");
            let work = Work::new(&device);
            set(Fault::SubmitsFull);
            assert_names(&device, work.submit(), "memory");
            set(Fault::None);
            assert!(device.is_lost());
            assert_names(&device, work.decode(), "lost");
            assert_works(select);
        });
    }

    /// What the process takes of its address space, in bytes.
    fn address_space() -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
        let pages: u64 = statm.split(' ').next().and_then(|pages| pages.parse().ok()).expect("a number");
        // SAFETY: asks for a constant.
        pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64
    }

    fn limit_address_space(bytes: u64) {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: `limit` is one, and is only read.
        let result: c_int = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
        assert_eq!(result, 0);
    }

    #[test]
    fn a_driver_out_of_memory_decodes_in_halves_or_says_so() {
        with_faults("a_driver_out_of_memory_decodes_in_halves_or_says_so", |select| {
            let device = Device::open(select).expect("the adapter opens");
            let work = Work::new(&device);
            work.decode().expect("decoded");
            // 301 MB of pixels, of which the driver can have a part.
            let rows = work.archive.rows((0..2000).map(|i| i % 5)).expect("there");
            let mut found = vec![0; 2000 * work.archive.geometry().image_len()];
            limit_address_space(address_space() + (200 << 20));
            let refused = work.gpu.submit(&rows, &OutputSpec::default());
            assert!(matches!(refused, Err(Error::GpuMemory { .. })), "{refused:?}");
            let decoded = work.gpu.decode_into(&rows, &OutputSpec::default(), &mut found);
            limit_address_space(libc::RLIM_INFINITY);
            decoded.expect("decoded");
            let images = work.expected.len();
            assert!(found.chunks(images).all(|images| images == work.expected));
        });
    }

    #[test]
    fn a_thread_that_cannot_be_had_is_an_error() {
        // One device will do: what its thread leaves would serve the next.
        static TRIED: AtomicBool = AtomicBool::new(false);
        with_faults("a_thread_that_cannot_be_had_is_an_error", |select| {
            if TRIED.swap(true, Ordering::Relaxed) {
                return;
            }
            let device = Device::open(select).expect("the adapter opens");
            let work = Work::new(&device);
            work.decode().expect("decoded");
            let batch = work.submit().expect("submitted");
            let mut found = vec![0; work.expected.len()];
            limit_address_space(address_space() + (100 << 20));
            let read = futures::executor::block_on(batch.read_into_async(&mut found));
            limit_address_space(libc::RLIM_INFINITY);
            assert!(matches!(read, Err(Error::Thread(_))), "{read:?}");
            assert!(futures::executor::block_on(batch.read_async()).expect("read") == work.expected);
        });
    }
}
