//! The shaders without a GPU: they parse, validate, lay out their parameters as Rust declares them, and translate to
//! the languages of all platforms with every combination of constants that the cases use.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "gpu")]

mod common;

use std::collections::HashSet;

use common::layers::LAYERS_CASES;
use common::{CASES, outputs};
use kuat::gpu::shaders::{self, Shader};
use naga::back;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

fn parse(shader: &Shader) -> (naga::Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(shader.source)
        .unwrap_or_else(|error| panic!("{}", error.emit_to_string_with_path(shader.source, shader.name)));
    let info = validate(&module, shader.name);
    (module, info)
}

fn validate(module: &naga::Module, what: &str) -> ModuleInfo {
    // Packing pairs of half floats is all that the shaders ask for beyond the minimum.
    Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32)
        .validate(module)
        .unwrap_or_else(|error| panic!("{what}: {error:?}"))
}

#[test]
fn every_shader_parses_and_validates() {
    shaders::ALL.iter().for_each(|shader| drop(parse(shader)));
}

#[test]
fn parameters_have_the_layout_that_rust_declares() {
    for shader in shaders::ALL {
        let (module, _) = parse(shader);
        let params = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("Params"));
        let naga::TypeInner::Struct { members, span } = &params.expect("it has parameters").1.inner else {
            panic!("{}: Params is no struct", shader.name)
        };
        let found: Vec<_> =
            members.iter().map(|member| (member.name.as_deref().expect("named"), member.offset as usize)).collect();
        assert_eq!(found, shader.params_layout, "{}", shader.name);
        assert_eq!(*span as usize, shader.params_size, "{}", shader.name);
    }
}

#[test]
fn every_combination_in_use_translates_to_every_platform() {
    for shader in shaders::ALL {
        let (module, info) = parse(shader);
        let mut seen = HashSet::new();
        let layered = LAYERS_CASES.iter().map(|case| case.archive());
        for archive in CASES.iter().map(|case| case.archive()).chain(layered) {
            for spec in outputs(archive.geometry().channels()) {
                for (entry_point, constants) in shader.uses(&archive, &spec) {
                    let key = format!("{} {entry_point} {constants:?}", shader.name);
                    if seen.insert(key.clone()) {
                        translate(&module, &info, entry_point, &constants, &key);
                    }
                }
            }
        }
        assert!(!seen.is_empty(), "{} is never used", shader.name);
    }
}

fn translate(module: &naga::Module, info: &ModuleInfo, entry_point: &str, constants: &[(&str, f64)], what: &str) {
    let stage = naga::ShaderStage::Compute;
    let constants = constants.iter().map(|(name, value)| (name.to_string(), *value)).collect();
    let (module, info) =
        back::pipeline_constants::process_overrides(module, info, Some((stage, entry_point)), &constants)
            .unwrap_or_else(|error| panic!("{what}: {error:?}"));

    let options = back::spv::PipelineOptions { shader_stage: stage, entry_point: entry_point.into() };
    let spirv = back::spv::write_vec(&module, &info, &back::spv::Options::default(), Some(&options));
    assert!(!spirv.unwrap_or_else(|error| panic!("{what}: SPIR-V: {error}")).is_empty());

    // Bindings are the driver layer's business; the translation itself is ours.
    let options = back::msl::Options { fake_missing_bindings: true, lang_version: (2, 0), ..Default::default() };
    let pipeline = back::msl::PipelineOptions { entry_point: Some((stage, entry_point.into())), ..Default::default() };
    back::msl::write_string(&module, &info, &options, &pipeline)
        .unwrap_or_else(|error| panic!("{what}: Metal: {error}"));

    let options = back::hlsl::Options {
        shader_model: back::hlsl::ShaderModel::V6_0,
        fake_missing_bindings: true,
        ..Default::default()
    };
    let pipeline = back::hlsl::PipelineOptions { entry_point: Some((stage, entry_point.into())) };
    let mut text = String::new();
    back::hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(&module, &info, None)
        .unwrap_or_else(|error| panic!("{what}: HLSL: {error}"));

    let options = back::glsl::Options {
        version: back::glsl::Version::Embedded { version: 310, is_webgl: false },
        ..Default::default()
    };
    let pipeline =
        back::glsl::PipelineOptions { shader_stage: stage, entry_point: entry_point.into(), multiview: None };
    let policies = naga::proc::BoundsCheckPolicies::default();
    let mut text = String::new();
    back::glsl::Writer::new(&mut text, &module, &info, &options, &pipeline, policies)
        .and_then(|mut writer| writer.write())
        .unwrap_or_else(|error| panic!("{what}: GLSL: {error}"));
}
