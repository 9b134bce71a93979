//! The `kuat` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // SAFETY: nothing else runs yet that could read the environment. The variable keeps a layer that Mesa installs
    // for choosing among GPUs, which kuat does itself, from writing to standard error.
    unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    // A limit on the size of files then fails the write that exceeds it, with an error that names the file, where the
    // signal would end the process.
    #[cfg(unix)]
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN)
    };
    kuat::cli::run(std::env::args_os()).into()
}
