//! The `kuat` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // SAFETY: nothing else runs yet that could read the environment. The variable keeps a layer that Mesa installs
    // for choosing among GPUs, which kuat does itself, from writing to standard error.
    unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    kuat::cli::run(std::env::args_os()).into()
}
