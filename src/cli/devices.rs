//! `kuat devices`

use serde_json::json;

use super::Report;
use crate::gpu::{AdapterKind, adapters};

/// List the GPU adapters, best first
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<Report> {
        let adapters = adapters();
        let line = |adapter: &crate::gpu::AdapterDescription| {
            let kind = match adapter.kind {
                AdapterKind::Discrete => "discrete",
                AdapterKind::Integrated => "integrated",
                AdapterKind::Other => "unknown kind",
                AdapterKind::Virtual => "virtual",
                AdapterKind::Software => "software, used only when named",
            };
            let mib = adapter.max_storage_buffer_binding_size >> 20;
            let driver = format!("{} {}", adapter.driver, adapter.driver_info);
            format!("{adapter}: {kind}; driver {}; bindings up to {mib} MiB\n", driver.trim())
        };
        let text = match adapters.is_empty() {
            true => "no GPU adapter; on Linux, Debian's package mesa-vulkan-drivers brings a software one\n".into(),
            false => adapters.iter().map(line).collect(),
        };
        Ok(Report::new(text, json!({ "adapters": adapters }), self.json))
    }
}
